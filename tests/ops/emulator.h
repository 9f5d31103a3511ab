// What `gpu.cu` asks of a GPU, on a CPU: every thread of a block is a fiber, and runs until the next barrier.
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

typedef unsigned int u32;
typedef unsigned short u16;

constexpr int VECTOR = CHANNELS < 8 ? CHANNELS : 8;

struct alignas(2 * VECTOR) Vector {
    u32 at[VECTOR / 2];
};

#define DEVICE inline
#define KERNEL(threads, blocks) void
#define UNROLL
#define UNROLL_BY_8

namespace emulator {
struct Barrier {
    int size = 0, arrived = 0;
    long passed = 0;
};
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
    int phase = 0;
};
inline std::vector<Fiber> fibers;
inline std::vector<Barrier> warps;
inline Barrier block;
inline ucontext_t scheduler;
inline std::function<void()> work;
inline int current = 0, x = 0, y = 0;
alignas(128) inline u16 memory[232448 / 2];
inline u32 exchange[32][2][32][6];
inline const u16* addresses[32][2][32];

inline void yield() {
    int here = current;
    do current = (current + 1) % static_cast<int>(fibers.size());
    while (fibers[current].done);
    if (current != here) swapcontext(&fibers[here].context, &fibers[current].context);
}
inline void wait(Barrier& barrier) {
    long before = barrier.passed;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        barrier.passed++;
        return;
    }
    while (barrier.passed == before) yield();
}
inline void begin() {
    work();
    int here = current;
    fibers[here].done = true;
    for (const Fiber& fiber : fibers)
        if (!fiber.done) {
            do current = (current + 1) % static_cast<int>(fibers.size());
            while (fibers[current].done);
            setcontext(&fibers[current].context);
        }
    setcontext(&scheduler);
}
inline void run(int grid_x, int grid_y, int threads, const std::function<void()>& kernel) {
    work = kernel;
    for (y = 0; y < grid_y; y++)
        for (x = 0; x < grid_x; x++) {
            std::memset(memory, 0xff, sizeof memory);  // NaN: what nobody wrote must not count
            fibers.assign(threads, {});
            warps.assign(threads / 32, {});
            block = {threads};
            for (Barrier& warp : warps) warp.size = 32;
            for (Fiber& fiber : fibers) {
                fiber.stack.resize(1 << 16);
                getcontext(&fiber.context);
                fiber.context.uc_stack.ss_sp = fiber.stack.data();
                fiber.context.uc_stack.ss_size = fiber.stack.size();
                makecontext(&fiber.context, begin, 0);
            }
            current = 0;
            swapcontext(&scheduler, &fibers[0].context);
        }
}
inline int next_phase() { return fibers[current].phase ^= 1; }
}  // namespace emulator

inline int thread() { return emulator::current; }
inline int block_x() { return emulator::x; }
inline int block_y() { return emulator::y; }
inline void sync_block() { emulator::wait(emulator::block); }
inline void sync_warp() { emulator::wait(emulator::warps[thread() / 32]); }
inline u16* shared_memory() { return emulator::memory; }
using std::fma;
inline u32 high_product(u32 a, u32 b) { return static_cast<unsigned long long>(a) * b >> 32; }
inline float maximum(float a, float b) { return std::fmax(a, b); }
inline void prefetch(const u16*) {}
inline float absolute(float a) { return std::fabs(a); }
inline float power_of_two(float a) { return std::exp2(a); }
inline float as_float(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline u32 both_low(u32 a, u32 b) { return (a & 0xffff) | b << 16; }
inline u32 both_high(u32 a, u32 b) { return a >> 16 | (b & 0xffff0000u); }
inline u32 swapped(u32 a) { return a >> 16 | a << 16; }
inline u32 bytes_of(u32 a, u32 b, u32 which) {
    unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
    u32 bytes = 0;
    for (int i = 0; i < 4; i++) bytes |= static_cast<u32>(both >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
    return bytes;
}
inline Vector load_vector(const u16* at) {
    if (reinterpret_cast<size_t>(at) % sizeof(Vector)) __builtin_trap();
    return *reinterpret_cast<const Vector*>(at);
}
inline void store_vector(u16* at, const Vector& value) {
    if (reinterpret_cast<size_t>(at) % sizeof(Vector)) __builtin_trap();
    *reinterpret_cast<Vector*>(at) = value;
}
inline float half_to_float(u32 bits) {
    _Float16 value;
    u16 half = bits;
    std::memcpy(&value, &half, 2);
    return value;
}
#if HALF
inline u32 bits_of(float value) {
    _Float16 half = value;
    u16 bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}
inline float number_of(u32 bits) { return half_to_float(bits); }
#else
inline u32 bits_of(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline float number_of(u32 bits) { return as_float(bits << 16); }
#endif
inline u32 pack(float low, float high) { return bits_of(low) | bits_of(high) << 16; }

inline float sum_warp(float value) {
    for (int step = 16; step > 0; step /= 2) {
        auto& slot = emulator::exchange[thread() / 32][emulator::next_phase()];
        std::memcpy(&slot[thread() % 32][0], &value, 4);
        sync_warp();
        value += as_float(slot[thread() % 32 ^ step][0]);
    }
    return value;
}
inline void load_matrices(u32 a[4], const u16* row) {
    if (reinterpret_cast<size_t>(row) % 16) __builtin_trap();
    if (row < emulator::memory || row + 8 > emulator::memory + sizeof emulator::memory / 2) __builtin_trap();
    auto& slot = emulator::addresses[thread() / 32][emulator::next_phase()];
    const int lane = thread() % 32;
    slot[lane] = row;
    sync_warp();
    for (int i = 0; i < 4; i++) std::memcpy(&a[i], slot[8 * i + lane / 4] + lane % 4 * 2, 4);
}
inline void multiply(float sums[4], const u32 a[4], u32 b0, u32 b1) {
    auto& slot = emulator::exchange[thread() / 32][emulator::next_phase()];
    const int lane = thread() % 32;
    std::memcpy(slot[lane], a, 16);
    slot[lane][4] = b0;
    slot[lane][5] = b1;
    sync_warp();
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            u32 left = slot[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], right = slot[column * 4 + k % 8 / 2][4 + k / 8];
            sums[i] += number_of(left >> k % 2 * 16 & 0xffff) * number_of(right >> k % 2 * 16 & 0xffff);
        }
    }
}
