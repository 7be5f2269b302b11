"""Memory of the arrays that kernels return. Built once, for the baseline CPU.

Design
  (A) NumPy aligns data to 16 bytes, and large blocks start 16 bytes after a page: then every 64-byte store touches two
      cache lines, which costs up to a quarter of a memory-bound kernel's time. Results of more than a few lines are
      therefore aligned to ALIGNMENT by an allocator of our own, which NumPy lets an array have for itself.
  (B) The array is made around the memory and given it to own, with the allocator to free it through, whoever drops it
      and whenever. NumPy's own way, PyDataMem_SetHandler before and after, looks up and sets a context variable twice:
      a quarter of a microsecond for each result. tracemalloc is told, as NumPy does.
  (C) Blocks of at least HUGE bytes ask for huge pages, as NumPy's own do.
  (D) malloc unmaps blocks from 32 MB on when they are freed, and the next one costs page faults and zeroing all over:
      more than half of the time of dropout on 64 MB. The last SLOTS freed blocks of such a size are therefore kept for
      the next array that fits, at most SLOTS·MOST_KEPT bytes. (Marking them with MADV_FREE, so that the system may take
      their pages, costs a sixth of that time again.)
  (E) A slot changes hands by one atomic exchange; whoever got a block out owns it. Nothing waits, and any thread may
      free.
"""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void* ctx
        void* (*malloc)(void*, size_t) noexcept nogil
        void* (*calloc)(void*, size_t, size_t) noexcept nogil
        void* (*realloc)(void*, void*, size_t) noexcept nogil
        void (*free)(void*, void*, size_t) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator

cdef extern from "Python.h":
    int PyTraceMalloc_Track(unsigned int domain, uintptr_t block, size_t size)

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__linux__)
      #include <malloc.h>
      #include <sys/mman.h>
      static void fastnn_huge_pages(void *block, size_t size) {
        /* whole huge pages inside the block; advice, so a refusal changes nothing */
        const size_t page = 1 << 21;
        char *start = (char *)(((size_t)block + page - 1) & ~(page - 1));
        char *end = (char *)(((size_t)block + size) & ~(page - 1));
        if (end > start) (void)madvise(start, (size_t)(end - start), MADV_HUGEPAGE);
      }

      #define FASTNN_SLOTS 2
      static void *fastnn_slot[FASTNN_SLOTS];

      static void *fastnn_exchange(int k, void *block) {
        return __atomic_exchange_n(&fastnn_slot[k], block, __ATOMIC_ACQ_REL);
      }
      /* Takes over a block; the newest moves in at the front, the oldest falls out. */
      static void fastnn_keep(void *block) {
        for (int k = 0; k < FASTNN_SLOTS && block; k++) block = fastnn_exchange(k, block);
        free(block);
      }
      /* A kept block that is large enough, and not by more than a quarter; or NULL. */
      static void *fastnn_reuse(size_t size) {
        for (int k = 0; k < FASTNN_SLOTS; k++) {
          void *block = fastnn_exchange(k, NULL);
          size_t usable = block ? malloc_usable_size(block) : 0;
          if (usable >= size && usable - size <= size / 4) return block;
          free(fastnn_exchange(k, block));
        }
        return NULL;
      }
    #else
      static void fastnn_huge_pages(void *block, size_t size) { (void)block; (void)size; }
      static void fastnn_keep(void *block) { free(block); }
      static void *fastnn_reuse(size_t size) { (void)size; return NULL; }
    #endif

    /* Makes `array` the owner of its data, to be freed through `handler`. */
    static void fastnn_give(PyArrayObject *array, PyObject *handler) {
      Py_INCREF(handler);
      ((PyArrayObject_fields *)array)->mem_handler = handler;
      PyArray_ENABLEFLAGS(array, NPY_ARRAY_OWNDATA);
    }
    """
    void fastnn_give(cnp.ndarray array, object handler)
    int posix_memalign(void** block, size_t alignment, size_t size) nogil
    void fastnn_huge_pages(void* block, size_t size) noexcept nogil
    void fastnn_keep(void* block) noexcept nogil
    void* fastnn_reuse(size_t size) noexcept nogil

cdef enum:
    ALIGNMENT = 64
    LEAST_ALIGNED = 8192
    TRACE_DOMAIN = 389047  # numpy.lib.tracemalloc_domain
    HUGE = 1 << 22
    LEAST_KEPT = 32 << 20  # malloc keeps what is smaller by itself
    MOST_KEPT = 128 << 20


cdef inline bint kept(size_t size) noexcept nogil:
    return LEAST_KEPT <= size <= MOST_KEPT


cdef void* aligned_malloc(void* context, size_t size) noexcept nogil:
    cdef void* block = fastnn_reuse(size) if kept(size) else NULL
    if block != NULL:
        return block
    if posix_memalign(&block, ALIGNMENT, size):
        return NULL
    if size >= HUGE:
        fastnn_huge_pages(block, size)
    return block


cdef void* plain_calloc(void* context, size_t count, size_t size) noexcept nogil:
    return calloc(count, size)


cdef void* plain_realloc(void* context, void* block, size_t size) noexcept nogil:
    # only ndarray.resize comes here; alignment is a matter of speed, not of meaning
    return realloc(block, size)


cdef void plain_free(void* context, void* block, size_t size) noexcept nogil:
    if kept(size):
        fastnn_keep(block)
    else:
        free(block)


cdef PyDataMem_Handler handler
memcpy(handler.name, b"fastnn_aligned", 15)
handler.version = 1
handler.allocator.ctx = NULL
handler.allocator.malloc = aligned_malloc
handler.allocator.calloc = plain_calloc
handler.allocator.realloc = plain_realloc
handler.allocator.free = plain_free
cdef object capsule = PyCapsule_New(&handler, "mem_handler", NULL)


cdef cnp.ndarray empty(int ndim, cnp.npy_intp* shape, int type_number):
    cdef double size = 8 if type_number == cnp.NPY_DOUBLE else 4    # a double cannot overflow
    cdef void* block
    cdef cnp.ndarray array
    cdef int i
    for i in range(ndim):
        size *= shape[i]
    block = aligned_malloc(NULL, <size_t>size) if LEAST_ALIGNED <= size < 2.0 ** 47 else NULL
    if block == NULL:
        return cnp.PyArray_EMPTY(ndim, shape, type_number, 0)  # small, or an error that NumPy words
    try:
        array = cnp.PyArray_SimpleNewFromData(ndim, shape, type_number, block)
    except BaseException:
        plain_free(NULL, block, <size_t>size)
        raise
    fastnn_give(array, capsule)
    PyTraceMalloc_Track(TRACE_DOMAIN, <uintptr_t>block, <size_t>size)
    return array
