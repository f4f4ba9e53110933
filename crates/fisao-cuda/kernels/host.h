// Runs CUDA C on the CPU, for tests: each thread of a block is a fiber of one OS thread, blocks run one after another, so results
// do not depend on timing. Barriers switch fibers, shuffles go through memory. A barrier that some threads of a block (or lanes of a
// warp) do not reach is reported, where a card would hang or go wrong.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#define FISAO_HOST 1
#define __device__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __restrict__ __restrict
#define DEVICE static inline
#define DYNAMIC_SHARED(name) unsigned char* name = host_state.shared

struct uint3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Layout shared with src/host.rs.
struct HostLaunch {
    uint32_t grid[3];
    uint32_t block;
    uint32_t shared_bytes;
};

// --- Fibers ---------------------------------------------------------------------------------------------------------------
//
// ucontext, which asks the system for its mask of signals at every switch, or on x86-64 the registers that a call keeps and no more.

static const size_t HOST_STACK = 128 << 10;

static void host_enter();

#if defined(__x86_64__) && defined(__ELF__) && !defined(__SANITIZE_ADDRESS__)

typedef void* HostContext;

extern "C" void host_switch(void** from, void* to);
asm(".text\n"
    ".hidden host_switch\n"
    ".globl host_switch\n"
    "host_switch:\n"
    "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n"
    "movq %rsi, %rsp\n"
    "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
    "ret\n");

static inline void host_swap(HostContext& from, HostContext& to) { host_switch(&from, to); }

static inline void host_begin(HostContext& context, char* stack)
{
    // The registers, where to return to, and nothing to return to from there.
    uintptr_t top = ((uintptr_t)stack + HOST_STACK) & ~(uintptr_t)15;
    void** words = (void**)top - 8;
    for (int word = 0; word < 8; word++) words[word] = nullptr;
    words[6] = (void*)host_enter;
    context = words;
}

#else

#include <ucontext.h>

typedef ucontext_t HostContext;

static inline void host_swap(HostContext& from, HostContext& to) { swapcontext(&from, &to); }

static inline void host_begin(HostContext& context, char* stack)
{
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = HOST_STACK;
    context.uc_link = nullptr;
    makecontext(&context, host_enter, 0);
}

#endif

enum HostWait { RUNNING, AT_WARP, AT_BLOCK, DONE };

struct HostFiber {
    HostContext context;
    HostWait wait;
};

struct HostState {
    HostContext scheduler;
    std::vector<HostFiber> fibers;
    std::vector<std::vector<char>> stacks;
    unsigned char* shared;
    void (*body)(void*);
    void* argument;
    unsigned current;
    // Two sets of slots, so that a lane that is ahead does not overwrite what another has yet to read.
    uint32_t slots[32][2][32][6];
    unsigned turn[1024];
};

static thread_local HostState host_state;
static thread_local uint3 threadIdx, blockIdx, blockDim, gridDim;

static inline void host_yield(HostWait wait)
{
    unsigned self = host_state.current;
    host_state.fibers[self].wait = wait;
    host_swap(host_state.fibers[self].context, host_state.scheduler);
    host_state.current = self;
    threadIdx.x = self;
}

static void host_enter()
{
    host_state.body(host_state.argument);
    host_state.fibers[host_state.current].wait = DONE;
    host_swap(host_state.fibers[host_state.current].context, host_state.scheduler);
}

static inline void host_resume(unsigned thread)
{
    host_state.current = thread;
    threadIdx = {thread, 0, 0};
    host_state.fibers[thread].wait = RUNNING;
    host_swap(host_state.scheduler, host_state.fibers[thread].context);
}

// 0, or 1 where a barrier was not reached by all.
static int host_run_block(unsigned threads)
{
    HostState& state = host_state;
    for (unsigned thread = 0; thread < threads; thread++) {
        HostFiber& fiber = state.fibers[thread];
        fiber.wait = AT_WARP;
        host_begin(fiber.context, state.stacks[thread].data());
        state.turn[thread] = 0;
    }
    for (;;) {
        unsigned at_block = 0, done = 0;
        for (unsigned first = 0; first < threads; first += 32) {
            unsigned end = first + 32 < threads ? first + 32 : threads;
            for (;;) {
                unsigned at_warp = 0, elsewhere = 0;
                for (unsigned thread = first; thread < end; thread++) {
                    if (state.fibers[thread].wait == AT_WARP) host_resume(thread);
                }
                for (unsigned thread = first; thread < end; thread++) {
                    (state.fibers[thread].wait == AT_WARP ? at_warp : elsewhere) += 1;
                }
                if (at_warp == 0) break;
                if (elsewhere != 0) return 1;
            }
            for (unsigned thread = first; thread < end; thread++) {
                (state.fibers[thread].wait == DONE ? done : at_block) += 1;
            }
        }
        if (at_block == 0) return 0;
        if (done != 0) return 1;
        for (unsigned thread = 0; thread < threads; thread++) state.fibers[thread].wait = AT_WARP;
    }
}

template <class... A, size_t... I>
static int host_run(void (*kernel)(A...), const HostLaunch* launch, void** values, std::index_sequence<I...>)
{
    auto call = [&] { kernel(*(A*)values[I]...); };
    host_state.body = [](void* argument) { (*(decltype(call)*)argument)(); };
    host_state.argument = &call;
    unsigned threads = launch->block;
    if (threads == 0 || threads > 1024) return 2;
    if (host_state.fibers.size() < threads) host_state.fibers.resize(threads);
    while (host_state.stacks.size() < threads) host_state.stacks.emplace_back(HOST_STACK);
    blockDim = {threads, 1, 1};
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    int error = 0;
    for (unsigned z = 0; z < gridDim.z && !error; z++) {
        for (unsigned y = 0; y < gridDim.y && !error; y++) {
            for (unsigned x = 0; x < gridDim.x && !error; x++) {
                blockIdx = {x, y, z};
                // Its own memory of exactly the size asked for, and full of NaN.
                host_state.shared = (unsigned char*)aligned_alloc(16, (launch->shared_bytes + 15) / 16 * 16 + 16);
                memset(host_state.shared, 0xff, launch->shared_bytes);
                error = host_run_block(threads);
                free(host_state.shared);
            }
        }
    }
    return error;
}

template <class... A>
static int host_run(void (*kernel)(A...), const HostLaunch* launch, void** values)
{
    return host_run(kernel, launch, values, std::index_sequence_for<A...>());
}

#define KERNEL(name, ...)                                                                                                      \
    static void name(__VA_ARGS__);                                                                                             \
    extern "C" int host_##name(const HostLaunch* launch, void** values) { return host_run(name, launch, values); }             \
    static void name(__VA_ARGS__)

static inline void __syncthreads() { host_yield(AT_BLOCK); }
static inline void __syncwarp() { host_yield(AT_WARP); }

static inline uint32_t (*host_exchange())[6]
{
    unsigned self = threadIdx.x;
    return host_state.slots[self / 32][host_state.turn[self]++ % 2];
}

template <class V> static inline V host_shuffle(V value, unsigned from)
{
    static_assert(sizeof(V) == 4, "shuffles are of 32 bits");
    auto slots = host_exchange();
    memcpy(slots[threadIdx.x % 32], &value, 4);
    host_yield(AT_WARP);
    memcpy(&value, slots[from % 32], 4);
    return value;
}

template <class V> static inline V __shfl_xor_sync(unsigned, V value, int mask)
{
    return host_shuffle(value, threadIdx.x % 32 ^ (unsigned)mask);
}
template <class V> static inline V __shfl_sync(unsigned, V value, int lane) { return host_shuffle(value, (unsigned)lane); }

static inline float __int_as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline uint32_t __float_as_uint(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline int min(int x, int y) { return x < y ? x : y; }
static inline int max(int x, int y) { return x > y ? x : y; }
static inline long long min(long long x, long long y) { return x < y ? x : y; }

static inline float host_from_bf16(uint16_t x) { return __int_as_float((uint32_t)x << 16); }
static inline uint16_t host_to_bf16(float x)
{
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float host_from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 0x3ff;
    if (exponent == 31) return __int_as_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0) return __int_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float x0 = (float)mantissa * 5.9604644775390625e-8f;
    return sign ? -x0 : x0;
}
static inline uint16_t host_to_f16(float x)
{
    uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return 0x7fff;
    if (bits >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000) {
        // Subnormal: the nearest multiple of 2⁻²⁴.
        float scaled = __int_as_float(bits) * 16777216.0f;
        return (uint16_t)(sign | (uint32_t)nearbyintf(scaled));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | (bits - 0x38000000) >> 13);
}

// `mma.sync.m16n8k16`: lanes hold the factors as the PTX manual lays them out, and exchange them through memory.
static inline void host_mma(float* sum, const unsigned* a, const unsigned* b, float (*widened)(uint16_t))
{
    auto slots = host_exchange();
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    memcpy(slots[lane], a, 16);
    memcpy(slots[lane] + 4, b, 8);
    host_yield(AT_WARP);
    auto half = [](uint32_t pair, int k) { return (uint16_t)(k % 2 ? pair >> 16 : pair & 0xffff); };
    auto left = [&](int row, int k) { return widened(half(slots[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k)); };
    auto right = [&](int k, int column) { return widened(half(slots[column * 4 + k % 8 / 2][4 + k / 8], k)); };
    for (int i = 0; i < 4; i++) {
        int row = (int)g + i / 2 * 8, column = (int)t * 2 + i % 2;
        for (int k = 0; k < 16; k++) sum[i] += left(row, k) * right(k, column);
    }
}
