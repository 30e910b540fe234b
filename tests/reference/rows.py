"""Columns *irq* and *cat* of every row of docs/model.md, section 5."""

from ._load import names

_GROUPS = (
    # steps, irq, cat
    ("TOUCH", 1, "user"),
    ("POPULATE DONTNEED", 1, "fault"),
    ("F_READ F_PT F_PT_SET F_ZERO F_ALLOC F_CHARGED F_FILL F_MAP F_WP F_WP_REUSE F_WP_CLEAR "
     "F_WP_SET F_CACHE F_RA_WIN F_RA_NEXT F_RA_CHARGED F_TARGET F_PREPARE F_BACKOFF F_LOCK F_RETRY "
     "F_RECHECK F_SWAP_MAP F_DONE", 1, "fault"),
    ("F_CL_WIN F_CL_NEXT F_CL_CHARGED", 1, "fault"),
    ("F_RA_READ F_RA_SUBMIT F_SWAP_READ F_SUBMIT", 1, "swap"),
    ("C_TRY C_AFTER", 1, "fault"),
    ("R_START R_PRIO R_LIST R_AGE R_END I_START", 1, "scan"),
    ("I_LOCK I_UNLOCK I_PUT I_PUT_UNLOCK K_LOCK K_UNLOCK K_PUT K_PUT_UNLOCK", 0, "scan"),
    ("K_NEXT", 1, "scan"),
    ("G_SHRINK G_NEXT G_KEEP G_MORE G_MM G_WALK G_AGAIN S_GEN S_LOOK S_YOUNG", 1, "scan"),
    ("G_ISOLATE G_UNLOCK G_PUT G_PUT_UNLOCK G_BATCH G_BATCH_UNLOCK G_MAX G_MAX_UNLOCK", 0, "scan"),
    ("S_PLAN S_NEXT S_LOCK S_WB S_WB_WAIT S_REF S_ADD S_UNMAP S_PIN S_DIRTY S_FREE "
     "S_FREE_FLUSHED S_TAIL S_END S_END_FLUSHED", 1, "scan"),
    ("S_SLOT P_OUT P_WRITE P_SUBMIT", 1, "swap"),
    ("U_DEFER U_CLEAR U_GEN U_MASK U_FLUSH U_SET", 1, "unmap"),
    ("P_END P_DISPATCH B_START B_LOCK B_OUT", 1, "scan"),
    ("D_LOCK D_UNLOCK", 0, "scan"),
    ("FL_START FL_QUEUE FL_SEND FL_WAIT FL_DONE M_BATCHED", 1, "flush"),
    ("FL_LOCAL", 0, "flush"),
    ("Q_ENTRY Q_TAKE Q_FUNC Q_ACK Q_EXIT T_TICK T_TIMER IO_ENTRY IO_END", 0, "interrupt"),
    ("SW_PICK SW_CLEAR SW_SET SW_GEN SW_CR3 W_BACK", 0, "sched"),
    ("W_WORK", 1, "sched"),
    ("E_LEFT E_ZAP E_PTES E_UNLOCK E_DONE", 1, "fault"),
    ("E_FREE V_FREE", 0, "fault"),
    ("V_CALL V_LOCK V_UNMAP V_MORE V_FULL V_TABLES V_FREED V_UNMAPPED V_PROT V_PTES V_MOVE V_PT V_MOVE_NEW "
     "V_MOVE_PTES V_MOVED V_END V_FORK V_FORK_PT V_FORK_PTES V_FORKED V_CHILD", 1, "fault"),
    ("H_EVENT H_YIELD", None, None),    # no columns: cost 0, last_on stays
)

NUMBER = {name: i for i, name in enumerate(names.STEPS)}
IRQ_ON, CAT = {}, {}
for _steps, _irq, _cat in _GROUPS:
    for _name in _steps.split():
        assert _name not in IRQ_ON
        IRQ_ON[_name], CAT[_name] = _irq, _cat
assert set(IRQ_ON) == set(NUMBER)
