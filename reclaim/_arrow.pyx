"""The Arrow C stream interface over the columns of a table: pyarrow, polars, pandas and others read it.

One record batch, copied column by column; every structure that is handed out owns what it points to,
so that a consumer may keep, move or release each of them by itself, from any thread.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np


cdef struct ArrowSchema:
    const char *format
    const char *name
    const char *metadata
    int64_t flags
    int64_t n_children
    ArrowSchema **children
    ArrowSchema *dictionary
    void (*release)(ArrowSchema *) noexcept nogil
    void *private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void **buffers
    ArrowArray **children
    ArrowArray *dictionary
    void (*release)(ArrowArray *) noexcept nogil
    void *private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept nogil
    int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept nogil
    const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
    void (*release)(ArrowArrayStream *) noexcept nogil
    void *private_data


# NumPy's kind and size of a column -> Arrow's format.
FORMATS = {"i8": b"l", "u8": b"L", "f8": b"g", "U": b"u"}


class _Batch:
    """What a stream holds: columns ready for Arrow, and whether they are still to be handed out."""

    def __init__(self, array):
        self.rows = len(array)
        self.columns = [_column(name, np.ascontiguousarray(array[name])) for name in array.dtype.names]
        self.left = True


def _column(name, values):
    """(name, format, buffers) of a column; the first buffer, which bits are valid, is not needed."""
    kind = values.dtype.kind if values.dtype.kind == "U" else f"{values.dtype.kind}{values.dtype.itemsize}"
    if kind not in FORMATS:
        raise TypeError(f"column {name!r}: Arrow export knows no {values.dtype}")
    if kind != "U":
        return name.encode(), FORMATS[kind], [values]
    text = [value.encode() for value in values.tolist()]
    offsets = np.zeros(len(text) + 1, dtype=np.int32)
    offsets[1:] = np.cumsum([len(value) for value in text])
    return name.encode(), FORMATS[kind], [offsets, np.frombuffer(b"".join(text) or b"\0", dtype=np.uint8)]


cdef void release_schema(ArrowSchema *schema) noexcept with gil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            free(schema.children[i])
    free(schema.children)
    if schema.private_data != NULL:
        Py_DECREF(<object>schema.private_data)
    schema.release = NULL


cdef void release_array(ArrowArray *array) noexcept with gil:
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            free(array.children[i])
    free(array.children)
    free(<void *>array.buffers)
    if array.private_data != NULL:
        Py_DECREF(<object>array.private_data)
    array.release = NULL


cdef int fill_schema(ArrowSchema *schema, bytes name, bytes form, list columns) except -1:
    """`schema` of one column, or of the struct of `columns`; it can be released however far this came."""
    cdef int64_t i
    memset(schema, 0, sizeof(ArrowSchema))
    schema.release = release_schema
    held = (name, form)
    Py_INCREF(held)
    schema.private_data = <void *><PyObject *>held
    schema.name, schema.format = name, form
    if columns:
        schema.children = <ArrowSchema **>calloc(len(columns), sizeof(ArrowSchema *))
        if schema.children == NULL:
            raise MemoryError
        schema.n_children = len(columns)
    for i, (column, inner, _) in enumerate(columns):
        schema.children[i] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if schema.children[i] == NULL:
            raise MemoryError
        fill_schema(schema.children[i], column, inner, [])
    return 0


cdef int fill_array(ArrowArray *array, int64_t rows, list buffers, list columns) except -1:
    """`array` of one column with `buffers`, or of the struct of `columns`; as `fill_schema`."""
    cdef int64_t i
    memset(array, 0, sizeof(ArrowArray))
    array.release = release_array
    array.length = rows
    Py_INCREF(buffers)
    array.private_data = <void *><PyObject *>buffers
    array.buffers = <const void **>calloc(1 + len(buffers), sizeof(void *))
    if array.buffers == NULL:
        raise MemoryError
    array.n_buffers = 1 + len(buffers)
    for i, buffer in enumerate(buffers):
        array.buffers[1 + i] = <const void *><uintptr_t>buffer.ctypes.data
    if columns:
        array.children = <ArrowArray **>calloc(len(columns), sizeof(ArrowArray *))
        if array.children == NULL:
            raise MemoryError
        array.n_children = len(columns)
    for i, (_, _, inner) in enumerate(columns):
        array.children[i] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if array.children[i] == NULL:
            raise MemoryError
        fill_array(array.children[i], rows, inner, [])
    return 0


cdef int get_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    try:
        fill_schema(out, b"", b"+s", (<object>stream.private_data).columns)
    except BaseException:
        release_schema(out)
        return ENOMEM
    return 0


cdef int get_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    batch = <object>stream.private_data
    if not batch.left:
        memset(out, 0, sizeof(ArrowArray))      # released: the end of the stream
        return 0
    try:
        fill_array(out, batch.rows, [], batch.columns)
    except BaseException:
        release_array(out)
        return ENOMEM
    batch.left = False
    return 0


cdef const char *get_last_error(ArrowArrayStream *stream) noexcept nogil:
    return NULL


cdef void release_stream(ArrowArrayStream *stream) noexcept with gil:
    Py_DECREF(<object>stream.private_data)
    stream.release = NULL


cdef void drop_capsule(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:                  # nobody took it
        stream.release(stream)
    free(stream)


def stream(array):
    """A capsule ``arrow_array_stream`` of the rows of a structured array, copied."""
    batch = _Batch(array)
    cdef ArrowArrayStream *made = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
    if made == NULL:
        raise MemoryError
    made.get_schema, made.get_next = get_schema, get_next
    made.get_last_error, made.release = get_last_error, release_stream
    Py_INCREF(batch)
    made.private_data = <void *><PyObject *>batch
    try:
        return PyCapsule_New(made, "arrow_array_stream", <void (*)(object) noexcept>drop_capsule)
    except BaseException:
        release_stream(made)
        free(made)
        raise
