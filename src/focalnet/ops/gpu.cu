// What `focal.cu` asks of a multiprocessor, in PTX where CUDA C++ without headers has no word for it.

typedef unsigned int u32;
typedef unsigned short u16;

constexpr int VECTOR = CHANNELS < 8 ? CHANNELS : 8;

struct alignas(2 * VECTOR) Vector {  // neighbouring channels at one position
    u32 at[VECTOR / 2];
};

#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define UNROLL _Pragma("unroll")
#define UNROLL_BY_8 _Pragma("unroll 8")

DEVICE int thread() { return threadIdx.x; }
DEVICE int block_x() { return blockIdx.x; }
DEVICE int block_y() { return blockIdx.y; }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE u16* shared_memory() {
    extern __shared__ __align__(128) u16 memory[];
    return memory;
}
DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }
DEVICE float maximum(float a, float b) { return fmaxf(a, b); }
DEVICE float absolute(float a) { return fabsf(a); }
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 both_low(u32 a, u32 b) { return __byte_perm(a, b, 0x5410); }
DEVICE u32 both_high(u32 a, u32 b) { return __byte_perm(a, b, 0x7632); }
DEVICE u32 swapped(u32 a) { return __byte_perm(a, a, 0x1032); }
DEVICE u32 bytes_of(u32 a, u32 b, u32 which) { return __byte_perm(a, b, which); }
DEVICE Vector load_vector(const u16* at) { return *reinterpret_cast<const Vector*>(at); }
DEVICE void store_vector(u16* at, const Vector& value) { *reinterpret_cast<Vector*>(at) = value; }
DEVICE void prefetch(const u16* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }
DEVICE float power_of_two(float a) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(a));
    return power;
}
DEVICE float half_to_float(u32 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<u16>(bits)));
    return value;
}
DEVICE float sum_warp(float value) {
    UNROLL for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
DEVICE void load_matrices(u32 a[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(static_cast<u32>(__cvta_generic_to_shared(row))));
}
#if HALF
#define TYPE "f16"
#else
#define TYPE "bf16"
#endif
DEVICE u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE void multiply(float sums[4], const u32 a[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
