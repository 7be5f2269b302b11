"""Runs a network as one call: the steps that kernels made, over chunks of samples. Built once: it holds no hot loop.

Design
  (A) A batch is cut into chunks of samples that go through all steps, so that what one step leaves is in the core's
      cache for the next, and threads meet once a call instead of once a step. A batch too small for that is one chunk,
      and its steps share their work among the threads. Bits depend on neither: a sample's results are its own.
  (B) Results between steps live in an arena at places that are planned once for one sample and scale with the chunk.
      Every worker has a part of its own; arenas are kept for the next call, one for each call that runs at a time.
  (C) Calls of few operations keep the GIL: handing it over costs more than they do.
  (D) Finding the plan compares the array with the forms planned so far, nearly always one: no hashing, no Python.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdlib cimport free

from fastnn._kernels._memory cimport empty
from fastnn._kernels._runtime cimport parallel_for, task, team_size
from fastnn._kernels.gate cimport regular

cnp.import_array()

__all__ = ["CallStep", "Executor", "Plan"]

cdef extern from *:
    """
    #include <stdlib.h>
    static inline Py_ssize_t fastnn_claim(Py_ssize_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }
    """
    Py_ssize_t claim "fastnn_claim"(Py_ssize_t* next) noexcept nogil
    int posix_memalign(void** block, size_t alignment, size_t size) nogil

cdef enum:
    LINE = 64
    # Chunks for each thread that make it worth while to give threads chunks: they need not take equally long.
    CHUNKS = 2
    PARTS = 4
    KEEP_GIL = 1 << 16  # work in bytes up to which a call keeps the GIL
    PLANS = 16          # forms of input whose plans are kept

# Where a step finds its operands: the call's input, its result, or slot − 2 of the arena.
cdef enum:
    INPUT = 0
    RESULT = 1
    NOWHERE = -1


cdef struct Record:
    runner run
    sizer scratch
    const void* settings
    Py_ssize_t source
    Py_ssize_t residual
    Py_ssize_t target


cdef struct Run:
    const Record* records
    Py_ssize_t count
    const Py_ssize_t* slots     # elements of one sample before each slot, and of all
    Py_ssize_t slot_count
    Py_ssize_t item
    const char* x
    char* y
    Py_ssize_t x_bytes          # of one sample
    Py_ssize_t y_bytes
    Py_ssize_t samples
    Py_ssize_t chunk
    char* arena
    Py_ssize_t part             # bytes of one worker's arena
    Py_ssize_t next             # chunk that no worker has claimed yet
    loop each
    void* failures


cdef void serial_for(task function, void* arguments, Py_ssize_t blocks, double work) noexcept nogil:
    cdef Py_ssize_t block
    for block in range(blocks):
        function(arguments, block)


cdef inline Py_ssize_t lines(Py_ssize_t size) noexcept nogil:
    return (size + LINE - 1) & ~<Py_ssize_t>(LINE - 1)


cdef inline Py_ssize_t slot_start(Run* r, Py_ssize_t slot, Py_ssize_t samples) noexcept nogil:
    return lines(r.slots[slot] * samples * r.item) + slot * LINE


cdef inline Py_ssize_t arena_bytes(Run* r, Py_ssize_t samples) noexcept nogil:
    cdef Py_ssize_t scratch = 0
    cdef Py_ssize_t k
    for k in range(r.count):
        if r.records[k].scratch != NULL:
            scratch = max(scratch, r.records[k].scratch(r.records[k].settings, samples))
    return slot_start(r, r.slot_count, samples) + lines(scratch)


cdef inline char* place(Run* r, char* arena, Py_ssize_t where, Py_ssize_t first, Py_ssize_t samples) noexcept nogil:
    if where == INPUT:
        return <char*>r.x + first * r.x_bytes
    if where == RESULT:
        return r.y + first * r.y_bytes
    if where == NOWHERE:
        return NULL
    return arena + slot_start(r, where - 2, samples)


cdef void run_chunk(Run* r, char* arena, Py_ssize_t first, Py_ssize_t samples) noexcept nogil:
    cdef Operands o
    cdef const Record* record
    cdef Py_ssize_t k
    o.samples, o.each, o.failures = samples, r.each, r.failures
    o.scratch = arena + slot_start(r, r.slot_count, samples)
    for k in range(r.count):
        record = r.records + k
        o.x = place(r, arena, record.source, first, samples)
        o.residual = place(r, arena, record.residual, first, samples)
        o.y = place(r, arena, record.target, first, samples)
        record.run(record.settings, &o)


cdef void work_off(void* arguments, Py_ssize_t worker) noexcept nogil:
    # a worker takes chunks until none is left
    cdef Run* r = <Run*>arguments
    cdef Py_ssize_t first = claim(&r.next) * r.chunk
    while first < r.samples:
        run_chunk(r, r.arena + worker * r.part, first, min(r.chunk, r.samples - first))
        first = claim(&r.next) * r.chunk


cdef class Arena:
    """Aligned memory that grows when more is asked for."""
    cdef void* block
    cdef Py_ssize_t size

    cdef int reserve(self, Py_ssize_t size) except -1:
        if size > self.size:
            free(self.block)
            self.block = NULL
            self.size = 0
            if posix_memalign(&self.block, LINE, size):
                self.block = NULL
                raise MemoryError
            self.size = size
        return 0

    def __dealloc__(self):
        free(self.block)


cdef class Plan:
    """What runs for inputs of one dtype whose samples have one shape.

    Parameters
    ----------
    dtype : numpy dtype
    x_shape, y_shape : tuple of int
        Of one sample.
    steps : list of (Step, int, int, int)
        With the places of input, residual and result: 0 the call's input, 1 its result, 2 … the slots, -1 none.
    slots : list of int
        Elements of one sample in each slot.
    work : float
        Of one sample, in bytes moved or an equivalent.
    granule, chunk : int
        A chunk's samples: a multiple of `granule`, at most `chunk`.
    python : bool
        Whether there is a step in Python: then the whole batch is one chunk and the GIL is kept.
    """
    cdef int type_number
    cdef int x_ndim
    cdef int y_ndim
    cdef cnp.npy_intp x_dims[32]
    cdef cnp.npy_intp y_dims[32]
    cdef Run template
    cdef Record* records
    cdef Py_ssize_t* slots
    cdef double work
    cdef Py_ssize_t granule
    cdef Py_ssize_t chunk
    cdef bint python
    cdef list steps

    def __cinit__(
        self, object dtype, tuple x_shape, tuple y_shape, list steps, list slots, double work, Py_ssize_t granule,
        Py_ssize_t chunk, bint python,
    ):
        cdef Py_ssize_t k, total
        cdef Step step
        self.type_number = dtype.num
        self.x_ndim, self.y_ndim = 1 + len(x_shape), 1 + len(y_shape)
        if max(self.x_ndim, self.y_ndim) > 32:
            raise ValueError("samples must have fewer than 32 axes")
        self.template.item = dtype.itemsize
        self.template.x_bytes = self.template.y_bytes = self.template.item
        for k in range(len(x_shape)):
            self.x_dims[1 + k] = x_shape[k]
            self.template.x_bytes *= <Py_ssize_t>x_shape[k]
        for k in range(len(y_shape)):
            self.y_dims[1 + k] = y_shape[k]
            self.template.y_bytes *= <Py_ssize_t>y_shape[k]
        self.records = <Record*>PyMem_Calloc(len(steps) + 1, sizeof(Record))
        self.slots = <Py_ssize_t*>PyMem_Calloc(len(slots) + 1, sizeof(Py_ssize_t))
        if self.records == NULL or self.slots == NULL:
            raise MemoryError
        for k in range(len(steps)):
            step, self.records[k].source, self.records[k].residual, self.records[k].target = steps[k]
            self.records[k].run, self.records[k].scratch = step.run, step.scratch
            self.records[k].settings = step.settings
        total = 0
        for k in range(len(slots)):
            self.slots[k] = total
            total += <Py_ssize_t>slots[k]
        self.slots[len(slots)] = total
        self.template.records, self.template.count = self.records, len(steps)
        self.template.slots, self.template.slot_count = self.slots, len(slots)
        self.steps = steps
        self.work, self.granule, self.chunk, self.python = work, granule, chunk, python

    def __dealloc__(self):
        PyMem_Free(self.records)
        PyMem_Free(self.slots)

    cdef inline bint fits(self, cnp.ndarray x) noexcept:
        cdef int k
        if cnp.PyArray_TYPE(x) != self.type_number or cnp.PyArray_NDIM(x) != self.x_ndim:
            return False
        for k in range(1, self.x_ndim):
            if cnp.PyArray_DIM(x, k) != self.x_dims[k]:
                return False
        return True

    cdef cnp.ndarray result_for(self, Py_ssize_t samples):
        cdef cnp.npy_intp dims[32]
        cdef int k
        dims[0] = samples
        for k in range(1, self.y_ndim):
            dims[k] = self.y_dims[k]
        return empty(self.y_ndim, dims, self.type_number)

    cdef int run(self, cnp.ndarray x, cnp.ndarray y, list arenas) except -1:
        cdef Run r = self.template
        cdef Py_ssize_t samples = cnp.PyArray_DIM(x, 0)
        cdef double work = self.work * samples
        cdef Py_ssize_t workers, chunk
        cdef Arena arena
        cdef list failures
        if samples == 0:
            return 0
        r.x, r.y, r.samples, r.next = <const char*>cnp.PyArray_DATA(x), <char*>cnp.PyArray_DATA(y), samples, 0
        r.failures = NULL
        if self.python:
            workers, r.chunk, r.each = 1, samples, parallel_for
            failures = []
            r.failures = <void*>failures
        else:
            workers, r.chunk, r.each = team_size(samples, work), min(samples, self.chunk), serial_for
            if workers > 1:
                chunk = (samples + PARTS * workers - 1) // (PARTS * workers)
                chunk = min(r.chunk, (chunk + self.granule - 1) // self.granule * self.granule)
                if samples < CHUNKS * workers * chunk:
                    workers, r.chunk, r.each = 1, samples, parallel_for
                else:
                    r.chunk = chunk
        r.part = arena_bytes(&r, r.chunk)
        try:
            arena = <Arena>arenas.pop()
        except IndexError:
            arena = Arena()
        arena.reserve(r.part * workers)
        r.arena = <char*>arena.block
        if self.python or work < KEEP_GIL:
            work_off(&r, 0)
        elif workers == 1:
            with nogil:
                work_off(&r, 0)
        else:
            with nogil:
                parallel_for(work_off, &r, workers, work)
        arenas.append(arena)
        if self.python and failures:
            raise failures[0]
        return 0


cdef class Executor:
    """Calls the plan that fits an array; `_prepare` makes one, `_gate` deals with everything but the common case."""
    cdef list _plans
    cdef list _arenas

    def __cinit__(self, *args, **kwargs):
        self._plans = []
        self._arenas = []

    def __call__(self, x, *, out=None):
        cdef Plan plan
        cdef cnp.ndarray y
        if out is None and regular(x) and cnp.PyArray_NDIM(<cnp.ndarray>x) > 0:
            for plan in self._plans:
                if plan.fits(<cnp.ndarray>x):
                    y = plan.result_for(cnp.PyArray_DIM(<cnp.ndarray>x, 0))
                    plan.run(<cnp.ndarray>x, y, self._arenas)
                    return y
        return self._gate(x, out)

    def _run(self, cnp.ndarray x not None, object choose):
        """The result for a regular array with a batch axis, in ``choose(y_shape)`` or, where that is None, in a new
        array."""
        cdef Plan plan = None
        cdef Plan known
        for known in self._plans:
            if known.fits(x):
                plan = known
                break
        if plan is None:
            plan = <Plan?>self._prepare(x.dtype, (<object>x).shape[1:])
            if len(self._plans) >= PLANS:
                del self._plans[0]
            self._plans.append(plan)
        y = choose((cnp.PyArray_DIM(x, 0), *[plan.y_dims[k] for k in range(1, plan.y_ndim)]))
        if y is None:
            y = plan.result_for(cnp.PyArray_DIM(x, 0))
        plan.run(x, <cnp.ndarray?>y, self._arenas)
        return y


cdef struct Call:
    void* function
    int type_number
    int ndim[2]
    cnp.npy_intp dims[2][32]


cdef class CallStep(Step):
    """A step in Python, for what is rare: ``function(x, residual, y)`` fills y; the arrays are views."""
    cdef Call call

    def __cinit__(self, object function, object dtype, tuple x_shape, tuple y_shape):
        cdef int which, k
        self.kept = function
        self.call.function, self.call.type_number = <void*>function, dtype.num
        for which, shape in enumerate((x_shape, y_shape)):
            self.call.ndim[which] = 1 + len(shape)
            for k in range(len(shape)):
                self.call.dims[which][1 + k] = shape[k]
        self.run, self.settings = run_call, &self.call


cdef cnp.ndarray viewed(Call* call, int which, const void* data, Py_ssize_t samples):
    cdef cnp.npy_intp dims[32]
    cdef int k
    dims[0] = samples
    for k in range(1, call.ndim[which]):
        dims[k] = call.dims[which][k]
    return cnp.PyArray_SimpleNewFromData(call.ndim[which], dims, call.type_number, <void*>data)


cdef void run_call(const void* settings, Operands* o) noexcept nogil:
    cdef Call* call = <Call*>settings
    with gil:
        try:
            residual = None if o.residual == NULL else viewed(call, 1, o.residual, o.samples)
            (<object>call.function)(
                viewed(call, 0, o.x, o.samples), residual, viewed(call, 1, o.y, o.samples))
        except BaseException as error:
            (<list>o.failures).append(error)
