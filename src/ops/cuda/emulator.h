// Enough of CUDA for the kernels to run on the host: the threads of a block are fibers that a scheduler takes in turns
// from one __syncthreads to the next; blocks follow each other. Every other launch goes backwards through threads and
// blocks, so that a result that depends on their order shows. Copies that may arrive later arrive when they are waited for,
// and until then NaN stands in their places, so that one that nobody waits for shows too.
#define EMULATED
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Dim { unsigned int x, y, z; };
static Dim threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned int __umulhi(unsigned int a, unsigned int b) { return (unsigned int)(((unsigned long long)a * b) >> 32); }
static inline unsigned int __float_as_uint(float x) { unsigned int bits; std::memcpy(&bits, &x, 4); return bits; }
static inline float __uint_as_float(unsigned int bits) { float x; std::memcpy(&x, &bits, 4); return x; }

namespace emulator {
struct Copy { void* to; const void* from; size_t bytes; bool there; };
// `batches`: copies under way, those of the last still being sent.
struct Fiber { ucontext_t context; bool finished; std::vector<std::vector<Copy>> batches; };
static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static Fiber* current;
static void (*body)(void**);
static void** arguments;
static unsigned long launches;
const size_t STACK = 64 * 1024;

static void run_fiber() {
    body(arguments);
    current->finished = true;
}

static void pause() { swapcontext(&current->context, &scheduler); }

static Dim place(unsigned long i, Dim size) {
    return Dim{(unsigned int)(i % size.x), (unsigned int)(i / size.x % size.y), (unsigned int)(i / size.x / size.y)};
}

static void run_plainly(bool backwards) {
    unsigned long threads = (unsigned long)blockDim.x * blockDim.y * blockDim.z;
    for (unsigned long i = 0; i < threads; i++) {
        threadIdx = place(backwards ? threads - 1 - i : i, blockDim);
        body(arguments);
    }
}

// One block: every thread up to the barrier, again and again, until all are through. False if a thread waits at a barrier
// that another has left behind for good.
static bool run_block(bool backwards) {
    unsigned long threads = (unsigned long)blockDim.x * blockDim.y * blockDim.z;
    if (fibers.size() < threads) { fibers.resize(threads); stacks.resize(threads * STACK); }
    for (unsigned long t = 0; t < threads; t++) {
        fibers[t].finished = false;
        fibers[t].batches.assign(1, {});
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = stacks.data() + t * STACK;
        fibers[t].context.uc_stack.ss_size = STACK;
        fibers[t].context.uc_link = &scheduler;
        makecontext(&fibers[t].context, run_fiber, 0);
    }
    for (;;) {
        unsigned long finished = 0;
        for (unsigned long i = 0; i < threads; i++) {
            unsigned long t = backwards ? threads - 1 - i : i;
            threadIdx = place(t, blockDim);
            current = &fibers[t];
            swapcontext(&scheduler, &current->context);
            finished += current->finished;
        }
        if (finished) {
            current = nullptr;
            return finished == threads;
        }
    }
}

static void send(void* to, const void* from, size_t bytes, bool there) {
    std::memset(to, 0xff, bytes);
    current->batches.back().push_back(Copy{to, from, bytes, there});
}
static void sent() { current->batches.emplace_back(); }
// All that was sent, but for the last `later` batches.
static void arrive(size_t later) {
    auto& batches = current->batches;
    while (batches.size() > later + 1) {
        for (const Copy& copy : batches.front()) {
            if (copy.there) std::memcpy(copy.to, copy.from, copy.bytes);
            else std::memset(copy.to, 0, copy.bytes);
        }
        batches.erase(batches.begin());
    }
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*(typename std::remove_reference<A>::type*)args[I]...);
}
template <class... A>
static void call(void (*kernel)(A...), void** args) { call(kernel, args, std::index_sequence_for<A...>{}); }
template <class... A>
static int arity(void (*)(A...)) { return (int)sizeof...(A); }

// `barriers`: whether its threads wait for each other; if not, they are plain calls.
struct Kernel { const char* name; bool barriers; int arity; void (*run)(void**); };
}  // namespace emulator

static inline void __syncthreads() {
    if (!emulator::current) std::abort();
    emulator::pause();
}
