"""Timed operations of this machine, for `reclaim calibrate`; Linux on x86 only.

Each function fills its first argument, doubles, with nanoseconds of one operation each, and returns nothing.  None
needs a privilege, takes memory that it does not give back, or leaves a process or a thread behind.  The GIL is
released while they run; what runs on which CPU is the caller's to arrange (`os.sched_setaffinity`), but for the
second thread of `shootdown`, which goes where it is told.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC
from posix.mman cimport (MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap)
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport pid_t
from posix.unistd cimport _exit, close, fork, read, write

import os

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <sys/mman.h>
    #include <sys/wait.h>
    #include <unistd.h>
    #include <fcntl.h>
    #ifndef MADV_POPULATE_READ
    #define MADV_POPULATE_READ 22
    #endif

    static int probe_pin(int cpu)      /* the calling thread */
    {
        cpu_set_t *set = CPU_ALLOC(cpu + 1);
        size_t size = CPU_ALLOC_SIZE(cpu + 1);
        int failed;

        if (!set)
            return -1;
        CPU_ZERO_S(size, set);
        CPU_SET_S(cpu, size, set);
        failed = sched_setaffinity(0, size, set);
        CPU_FREE(set);
        return failed;
    }

    /* One writer each; x86 keeps their order. */
    #define probe_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define probe_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    /* Keeps what was read without using it. */
    #define probe_keep(v) __asm__ volatile("" : : "r"(v) : "memory")
    """
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *, void *, void *(*)(void *) noexcept nogil, void *) nogil
    int pthread_join(pthread_t, void **) nogil
    int madvise(void *, size_t, int) nogil
    int pipe2(int *, int) nogil
    pid_t waitpid(pid_t, int *, int) nogil
    int probe_pin(int cpu) nogil
    int64_t probe_load(int64_t *) nogil
    void probe_store(int64_t *, int64_t) nogil
    void probe_keep(uint64_t) nogil
    int MADV_DONTNEED
    int MADV_HUGEPAGE
    int MADV_NOHUGEPAGE
    int MADV_POPULATE_READ

cdef enum:
    PAGE = 4096
    STEP = PAGE + 64         # to another page, and to another set of the caches
    SCATTER = 77             # odd: pages get their frames in an order that is not theirs
    FRESH = 2000             # ns since the spinner's last beat: it runs
    PATIENCE = 50_000_000    # ns to wait for that
    MISSES = 4               # that many times


@cython.linetrace(False)
cdef inline int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec


cdef char *map_pages(size_t nbytes, int advice) except? NULL nogil:
    cdef void *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if at == MAP_FAILED:
        with gil:
            raise OSError(errno, "mmap: " + os.strerror(errno))
    madvise(at, nbytes, advice)      # a kernel without huge pages refuses, and has none
    return <char *>at


cdef class Pages:
    """Pages to touch in an order that no prefetcher knows.

    nr : pages, a power of two.
    own : each has a frame of its own, and neighbours have not (a TLB may keep runs of frames in one entry).  Else all
        are the zero page, which takes memory for page tables only: one cache line of data, so that what touches cost
        is translation.
    every : only each of that many pages is touched to begin with.
    evict_bytes : of other data, to push page tables out of the caches.
    """

    cdef char *at
    cdef size_t nbytes, evict_bytes
    cdef char *evict
    cdef uint64_t x

    def __cinit__(self, int64_t nr, bint own=False, int64_t every=1, int64_t evict_bytes=0):
        cdef int64_t i
        if not 1 <= nr <= 1 << 24 or nr & (nr - 1):
            raise ValueError(f"nr = {nr}: must be a power of two up to 2**24")
        if every < 1 or not 0 <= evict_bytes <= 1 << 40:
            raise ValueError(f"every = {every}, evict_bytes = {evict_bytes}: must be 1 or more, 0 to 2**40")
        self.x = 1
        self.nbytes = nr * PAGE
        self.at = map_pages(self.nbytes, MADV_NOHUGEPAGE)
        if evict_bytes:
            self.evict = map_pages(evict_bytes, MADV_HUGEPAGE)
            self.evict_bytes = evict_bytes
        with nogil:
            for i in range(nr // every):
                if own:
                    self.at[(i * every * SCATTER & (nr - 1)) * PAGE] = 0
                else:
                    probe_keep(self.at[i * every * PAGE])
            if self.evict_bytes:
                memset(self.evict, 1, self.evict_bytes)

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, self.nbytes)
        if self.evict != NULL:
            munmap(self.evict, self.evict_bytes)

    def chase(self, double[::1] out, int64_t nr, int64_t stride, int group, int64_t count, bint evict=False):
        """Touch one of `nr` places `stride` bytes apart at random, and group - 1 after it; `count` touches a value.

        A touch's address hangs on what the touch before it read.  evict: with the caches full of other data.
        """
        cdef uint64_t x = self.x, read_ = 0, mask
        cdef unsigned char *place
        cdef int64_t start, n
        cdef Py_ssize_t i
        cdef int k
        if stride < 1 or not 1 <= group <= nr <= <int64_t>self.nbytes // stride or nr % group or count < group or \
                (nr // group) & (nr // group - 1):
            raise ValueError(f"nr = {nr}, stride = {stride}, group = {group}, count = {count}")
        mask = nr // group - 1
        with nogil:
            for i in range(out.shape[0]):
                if evict:
                    for n in range(0, <int64_t>self.evict_bytes, 64):
                        probe_keep(self.evict[n])
                start = now()
                n = 0
                while n < count:
                    x = x * <uint64_t>6364136223846793005 + <uint64_t>1442695040888963407 + read_
                    place = <unsigned char *>self.at + ((x >> 33) & mask) * group * stride
                    for k in range(group):
                        read_ = place[k * stride + read_]      # 0
                        probe_keep(read_)
                    n += group
                out[i] = <double>(now() - start) / n
        self.x = x

    def refill(self, double[::1] hot, double[::1] after, int64_t nr, int64_t flushed):
        """A pass over `nr` pages that were just touched, and one after `flushed` others were unmapped; per page.

        The kernel flushes the whole mm for more than 33 pages, and page by page for fewer.
        """
        cdef size_t others = flushed * PAGE
        cdef char *other
        cdef int64_t start, n
        cdef uint64_t read_ = 0
        cdef Py_ssize_t i
        cdef int turn
        cdef double taken
        if hot.shape[0] != after.shape[0] or not 1 <= nr <= <int64_t>self.nbytes // STEP or \
                not 1 <= flushed <= 1 << 16:
            raise ValueError(f"nr = {nr}, flushed = {flushed}")
        other = map_pages(others, MADV_NOHUGEPAGE)
        with nogil:
            for i in range(hot.shape[0]):
                for n in range(flushed):
                    other[n * PAGE] = 1
                for turn in range(3):        # the first fills the TLB
                    if turn == 2:
                        madvise(other, others, MADV_DONTNEED)
                    start = now()
                    for n in range(nr):
                        read_ = (<unsigned char *>self.at)[n * STEP + read_]      # 0: each waits for the one before
                        probe_keep(read_)
                    taken = <double>(now() - start) / nr
                    if turn == 1:
                        hot[i] = taken
                    elif turn == 2:
                        after[i] = taken
            munmap(other, others)


def fault(double[::1] out, int64_t pages, bint write_):
    """First touches of anonymous pages, `pages` of them a value: writes get a page, reads the zero page."""
    cdef size_t nbytes = pages * PAGE
    cdef char *at
    cdef int64_t start, n
    cdef Py_ssize_t i
    if not 1 <= pages <= 1 << 20:
        raise ValueError(f"pages = {pages}")
    at = map_pages(nbytes, MADV_NOHUGEPAGE)
    with nogil:
        for i in range(out.shape[0]):
            start = now()
            if write_:
                for n in range(pages):
                    at[n * PAGE] = 1
            else:
                for n in range(pages):
                    probe_keep(at[n * PAGE])
            out[i] = <double>(now() - start) / pages
            madvise(at, nbytes, MADV_DONTNEED)
        munmap(at, nbytes)


def populate(double[::1] out, int64_t pages):
    """MADV_POPULATE_READ over `pages` pages that are there already, for each page."""
    cdef size_t nbytes = pages * PAGE
    cdef char *at
    cdef int64_t start
    cdef Py_ssize_t i
    cdef int failed = 0
    if not 1 <= pages <= 1 << 20:
        raise ValueError(f"pages = {pages}")
    at = map_pages(nbytes, MADV_NOHUGEPAGE)
    with nogil:
        memset(at, 1, nbytes)
        for i in range(out.shape[0]):
            start = now()
            if madvise(at, nbytes, MADV_POPULATE_READ):
                failed = errno
                break
            out[i] = <double>(now() - start) / pages
        munmap(at, nbytes)
    if failed:
        raise OSError(failed, "MADV_POPULATE_READ: " + os.strerror(failed))


def move(double[::1] out, int64_t pages, bint copy):
    """Copying, or zeroing, one of `pages` pages (pairs of pages) in turn; 64 of them a value."""
    cdef size_t nbytes = 2 * pages * PAGE
    cdef char *at
    cdef int64_t start, page = 0
    cdef Py_ssize_t i
    cdef int k
    if not 1 <= pages <= 1 << 20:
        raise ValueError(f"pages = {pages}")
    at = map_pages(nbytes, MADV_NOHUGEPAGE)
    with nogil:
        memset(at, 1, nbytes)
        for i in range(out.shape[0]):
            start = now()
            for k in range(64):
                if copy:
                    memcpy(at + 2 * page * PAGE, at + (2 * page + 1) * PAGE, PAGE)
                else:
                    memset(at + 2 * page * PAGE, 0, PAGE)
                probe_keep(<uintptr_t>at)
                page = (page + 1) % pages
            out[i] = <double>(now() - start) / 64
        munmap(at, nbytes)


# --- context switches

# Neither the forked process nor the second thread may run Python: a build that traces lines leaves these out.

@cython.linetrace(False)
cdef int pass_byte(int fd, bint write_) noexcept nogil:
    """Write or read one byte; 0, or -1 at the end of the other side or on an error."""
    cdef char byte = 0
    cdef Py_ssize_t n
    while True:
        n = write(fd, &byte, 1) if write_ else read(fd, &byte, 1)
        if n == 1:
            return 0
        if n == 0 or errno != EINTR:
            return -1


@cython.linetrace(False)
cdef pid_t start_echo(const int *there, const int *back) noexcept nogil:
    """Another process that sends each byte back until the end of them; its id, or -1."""
    cdef pid_t child = fork()
    if child == 0:       # no Python, no malloc: the other threads' locks may be held
        close(there[1])
        close(back[0])
        while pass_byte(there[0], False) == 0 and pass_byte(back[1], True) == 0:
            pass
        _exit(0)
    return child


def pipe_alone(double[::1] out, int64_t rounds):
    """Writing a byte to a pipe and reading it back, in one process; `rounds` a value."""
    cdef int[2] fd
    cdef int64_t start, n
    cdef Py_ssize_t i
    cdef int failed = 0
    if rounds < 1:
        raise ValueError(f"rounds = {rounds}")
    if pipe2(fd, O_CLOEXEC):
        raise OSError(errno, "pipe: " + os.strerror(errno))
    with nogil:
        for i in range(out.shape[0]):
            start = now()
            for n in range(rounds):
                failed |= pass_byte(fd[1], True) | pass_byte(fd[0], False)
            out[i] = <double>(now() - start) / rounds
        close(fd[0])
        close(fd[1])
    if failed:
        raise OSError("a pipe did not pass a byte on")


def ping_pong(double[::1] out, int64_t rounds):
    """Half of the way there and back of a byte between two processes, `rounds` a value.

    The caller pins itself to one CPU, and the other process inherits that.
    """
    cdef int[2] there, back
    cdef int64_t start, n
    cdef Py_ssize_t i
    cdef int failed = 0, status
    cdef pid_t child
    if rounds < 1:
        raise ValueError(f"rounds = {rounds}")
    if pipe2(there, O_CLOEXEC):
        raise OSError(errno, "pipe: " + os.strerror(errno))
    if pipe2(back, O_CLOEXEC):
        failed = errno
        close(there[0])
        close(there[1])
        raise OSError(failed, "pipe: " + os.strerror(failed))
    with nogil:
        child = start_echo(there, back)
        failed = errno if child < 0 else 0
        close(there[0])
        close(back[1])
        if child > 0:
            for i in range(out.shape[0]):
                start = now()
                for n in range(rounds):
                    if pass_byte(there[1], True) or pass_byte(back[0], False):
                        failed = EAGAIN
                        break
                if failed:
                    break
                out[i] = <double>(now() - start) / (2 * rounds)
        close(there[1])
        close(back[0])
        while child > 0 and waitpid(child, &status, 0) < 0 and errno == EINTR:
            pass
    if failed:
        raise OSError(failed, "the other process of a ping-pong: " + os.strerror(failed))


# --- shootdowns

ctypedef struct spinner_t:
    int64_t beat             # when it last looked at the clock; each of these on a cache line of its own
    int64_t[7] pad0
    int64_t away             # its longest absence since it was last set to 0
    int64_t[7] pad1
    int64_t reset            # the other side asks for that
    int64_t[7] pad2
    int64_t stop
    int64_t failed
    int64_t cpu
    int64_t[5] pad3


@cython.linetrace(False)
cdef void *spin(void *arg) noexcept nogil:
    """The second thread: looks at the clock all the time, on its own CPU."""
    cdef spinner_t *s = <spinner_t *>arg
    cdef int64_t last, t, longest = 0
    if probe_pin(<int>s.cpu):
        probe_store(&s.failed, errno)
        return NULL
    last = now()
    while not probe_load(&s.stop):
        t = now()
        if probe_load(&s.reset):
            longest = 0
            probe_store(&s.away, 0)
            probe_store(&s.reset, 0)
        elif t - last > longest:
            longest = t - last
            probe_store(&s.away, longest)
        last = t
        probe_store(&s.beat, t)
    return NULL


cdef bint runs(spinner_t *s) noexcept nogil:
    """Wait for a beat from after now; False if none comes."""
    cdef int64_t start = now(), t
    while True:
        if probe_load(&s.failed):
            return False
        if probe_load(&s.beat) > start:
            return True
        t = now()
        if t - start > PATIENCE:
            return False


def shootdown(double[::1] out, double[::1] away, int cpu):
    """madvise(MADV_DONTNEED) of one page that was written.

    cpu : where a second thread of this process spins; -1: there is none.
    away : how long that thread did not run around each call; the flush's interrupt, if it is long.  The values at
        which the thread did not run to begin with are left out: returns how many there are.
    """
    cdef spinner_t s
    cdef pthread_t thread
    cdef int64_t start, taken
    cdef Py_ssize_t i = 0, tries
    cdef int failed = 0, misses = 0
    cdef char *at
    if away.shape[0] != out.shape[0]:
        raise ValueError("out and away must be of one length")
    memset(&s, 0, sizeof(s))
    s.cpu = cpu
    at = map_pages(PAGE, MADV_NOHUGEPAGE)
    with nogil:
        if cpu >= 0:
            failed = pthread_create(&thread, NULL, spin, &s)
        if not failed:
            for tries in range(4 * out.shape[0]):
                if i == out.shape[0]:
                    break
                at[0] = 1
                if cpu >= 0:
                    probe_store(&s.reset, 1)
                    while probe_load(&s.reset) and runs(&s):
                        pass
                    if not runs(&s):
                        misses += 1
                        if misses > MISSES or probe_load(&s.failed):
                            break
                        continue
                start = now()
                if cpu >= 0 and start - probe_load(&s.beat) > FRESH:
                    continue
                failed = madvise(at, PAGE, MADV_DONTNEED)
                taken = now() - start
                if failed:
                    failed = errno
                    break
                out[i] = <double>taken
                if cpu >= 0:
                    if not runs(&s):
                        misses += 1
                        continue
                    away[i] = <double>probe_load(&s.away)
                i += 1
            if cpu >= 0:
                probe_store(&s.stop, 1)
                pthread_join(thread, NULL)
                failed = failed or <int>s.failed
        munmap(at, PAGE)
    if failed:
        raise OSError(failed, "a second thread that spins: " + os.strerror(failed))
    return i
