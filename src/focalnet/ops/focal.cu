// The focal operator as one kernel: every level of an image stays in shared memory, and a map is read and written once.
//
// A block owns CHANNELS channels (8, of large maps 4) of one image after the other, WPC warps each of them; a lane
// reads and writes VECTOR of them, 16 bytes, at a position. Maps lie in shared memory as planes, one channel each, rows
// of PITCH numbers: 8 zeros on the left, W values, zeros up to a multiple of 16; the zeros of the next row are those on
// the right. HALO rows of zeros lie above every plane.
//
// A depth-wise convolution is a product of matrices on the tensor cores. For one row dy of the kernel,
//
//     a[r, x] += sum_k  z[r + dy - p, x0 + k] T[k, x],      T[k, x] = w[dy, k - x + p]      (a Toeplitz band)
//
// with 16 rows r and 16 columns x at a time: `mma` m16n8k16, sums in float32. The window of k has 16 columns where the
// map has (NK = 1), else 32 from 8 columns left of x0 on (NK = 2). T is not stored: a lane reads its pairs (k, k + 1)
// from the row of taps between zeros, kept twice, one shifted by one number, so that every pair is an aligned word.
//
// The gradient of a kernel is another product: dw[dy, dx] = sum_{r, x} c[r + dy - p, x] d[r, x - dx + p], rows dy times
// columns dx, one step per row r and 16 columns x.
//
// Nothing is added atomically: two runs give the same bits. Legend: a before, c after GELU; d gradient of a; g gates.
//
// When it is compiled, `gpu.cu` stands before it, with what a multiprocessor does for it, and `forward.cu` or
// `backward.cu` behind it.
//
// Constants of a compilation: L levels with kernels K0..K3, MT x WT tiles of 16 x 16, CHANNELS, WPC, BLOCKS per
// multiprocessor, HALF float16 instead of bfloat16, WEIGHTS_FLOAT kernels in float32, TABLE numbers of a row of taps
// with the zeros around it.

DEVICE int lane_of_warp() { return thread() & 31; }

DEVICE constexpr int size_of(int l) { return l == 0 ? K0 : l == 1 ? K1 : l == 2 ? K2 : K3; }
DEVICE constexpr int rows_before(int l) { return l == 0 ? 0 : rows_before(l - 1) + size_of(l - 1); }
DEVICE constexpr int taps_before(int l) { return l == 0 ? 0 : taps_before(l - 1) + size_of(l - 1) * size_of(l - 1); }
DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }
DEVICE constexpr int widest(int l) { return l == 0 ? 0 : larger(size_of(l - 1), widest(l - 1)); }

constexpr int NK = WT == 1 ? 1 : 2;
constexpr int PITCH = 8 + 16 * WT;
constexpr int HALO = widest(L) / 2;
constexpr int ROWS = rows_before(L);
constexpr int VECTORS = CHANNELS / VECTOR;
constexpr int WARPS = CHANNELS * WPC;
constexpr int THREADS = 32 * WARPS;
constexpr int TILES = MT * WT;
constexpr int GATE_PITCH = 16 * WT;

#if HALF
DEVICE float low(u32 pair) { return half_to_float(pair & 0xffff); }
DEVICE float high(u32 pair) { return half_to_float(pair >> 16); }
#else
DEVICE float low(u32 pair) { return as_float(pair << 16); }
DEVICE float high(u32 pair) { return as_float(pair & 0xffff0000u); }
#endif

DEVICE u32 word(const u16* at) { return *reinterpret_cast<const u32*>(at); }
DEVICE void set_word(u16* at, u32 value) { *reinterpret_cast<u32*>(at) = value; }

// The upper tail of the normal distribution at a >= 0, as 2 to a polynomial: off by 2e-6 at most.
DEVICE float normal_above(float a) {
    float p = fma(a, -0.00048667425289750f, 0.00718885101377964f);
    p = fma(a, p, -0.05212074145674706f);
    p = fma(a, p, -0.45962867140769958f);
    p = fma(a, p, -1.15097987651824951f);
    return power_of_two(fma(a, p, -1.00000512599945068f));
}

DEVICE float gelu(float a) { return maximum(a, 0.0f) - absolute(a) * normal_above(absolute(a)); }

DEVICE float gelu_slope(float a) {
    float above = normal_above(absolute(a));
    float density = power_of_two(-0.72134752f * a * a) * 0.39894228f;
    return fma(a, density, a > 0.0f ? 1.0f - above : above);
}

// Rows and columns of pairs, without a division for each: pairs below 2^16.
struct Pairs {
    int count, columns;
    u32 inverse;

    DEVICE Pairs(int H, int W) {
        columns = (W + 1) / 2;
        count = H * columns;
        inverse = 0xffffffffu / columns + 1;
    }
    DEVICE int row(int pair) const { return columns == 1 ? pair : high_product(pair, inverse); }
};

// The shared memory of a block, and which part of the work is this warp's. A buffer is CHANNELS planes.
struct Share {
    u16* planes;
    u16* gates;     // [L + 1][H][GATE_PITCH], of the backward pass
    u16* taps;      // [CHANNELS][ROWS][2][TABLE]
    float* sums;    // [2][CHANNELS][WPC]
    float* pooled;  // [CHANNELS]
    int H, W;
    int first;          // channel of the map that is the first of the block
    int channel, part;  // of the block, and of the WPC warps that share it

    DEVICE int plane_size() const { return (H + HALO) * PITCH; }
    DEVICE u16* plane(int buffer, int c) const {
        return planes + (buffer * CHANNELS + c) * plane_size() + HALO * PITCH + 8;
    }
    DEVICE u16* plane(int buffer) const { return plane(buffer, channel); }
};

DEVICE u16 weight_bits(const void* kernel, int at) {
#if WEIGHTS_FLOAT
    return pack(static_cast<const float*>(kernel)[at], 0.0f) & 0xffff;
#else
    return static_cast<const u16*>(kernel)[at];
#endif
}

DEVICE void load_taps(const Share& s, const void* const kernels[4]) {
    UNROLL for (int l = 0; l < L; l++) {
        const int size = size_of(l), shift = 16 - size / 2;
        for (int i = thread(); i < CHANNELS * size * 2 * TABLE; i += THREADS) {
            int at = i % TABLE, copy = i / TABLE % 2, row = i / (2 * TABLE);  // row of all channels
            int dx = at + copy - shift, channel = row / size, dy = row % size;
            bool inside = dx >= 0 && dx < size;
            s.taps[((channel * ROWS + rows_before(l) + dy) * 2 + copy) * TABLE + at] =
                inside ? weight_bits(kernels[l], ((s.first + channel) * size + dy) * size + dx) : 0;
        }
    }
}

// Cut the shared memory, with zeros where maps and gates will lie, and look up the taps.
DEVICE Share begin(int buffers, int gate_maps, int tail, int H, int W, const void* const kernels[4]) {
    u16* memory = shared_memory();
    Share s;
    s.H = H;
    s.W = W;
    s.first = block_x() * CHANNELS;
    s.channel = thread() / 32 / WPC;
    s.part = thread() / 32 % WPC;
    s.planes = memory;
    s.gates = memory + buffers * CHANNELS * s.plane_size() + tail * PITCH;
    s.taps = s.gates + gate_maps * H * GATE_PITCH;
    s.sums = reinterpret_cast<float*>(s.taps + CHANNELS * ROWS * 2 * TABLE);
    s.pooled = s.sums + 2 * CHANNELS * WPC;
    for (int i = thread(); i < (s.taps - memory) / 2; i += THREADS) set_word(memory + 2 * i, 0);
    load_taps(s, kernels);
    return s;
}

// A map in memory, from the channels of a block on.
struct Map {
    const u16* data;
    int image, row, column;

    DEVICE const u16* at(long long i, int r, int x) const { return data + i * image + r * row + x * column; }
};

// Two neighbours of a row at a time: their channels are turned into a word of each plane.
DEVICE void store_words(u16* to, int plane, const Vector& a, const Vector& b) {
    UNROLL for (int c = 0; c < VECTOR / 2; c++) {
        set_word(to + 2 * c * plane, both_low(a.at[c], b.at[c]));
        set_word(to + (2 * c + 1) * plane, both_high(a.at[c], b.at[c]));
    }
}

// The gates of a pair, a word for each level.
DEVICE void read_gates(u32 words[L + 1], const Map& gates, int level, long long image, int r, int x, bool both) {
    const u16* from = gates.at(image, r, x);
    UNROLL for (int l = 0; l <= L; l++)
        words[l] = from[l * level] | static_cast<u32>(from[(both ? gates.column : 0) + l * level]) << 16;
}

DEVICE void store_pair(u16* to, const Vector& a, const Vector& b, int channels, bool both) {
    store_vector(to, a);
    if (both) store_vector(to + channels, b);
}

DEVICE void store_planes(const Share& s, int buffer, u16* target, int channels) {
    const Pairs pairs(s.H, s.W);
    const int plane = s.plane_size();
    for (int i = thread(); i < pairs.count * VECTORS; i += THREADS) {
        const int p = i / VECTORS, first = i % VECTORS * VECTOR, r = pairs.row(p), x = 2 * (p - r * pairs.columns);
        const u16* from = s.plane(buffer, first) + r * PITCH + x;
        Vector a, b;
        UNROLL for (int c = 0; c < VECTOR / 2; c++) {
            u32 even = word(from + 2 * c * plane), odd = word(from + (2 * c + 1) * plane);
            a.at[c] = both_low(even, odd);
            b.at[c] = both_high(even, odd);
        }
        store_pair(target + static_cast<long long>(r * s.W + x) * channels + first, a, b, channels, x + 1 < s.W);
    }
}

DEVICE void sync_channel() {
    if (WPC == 1)
        sync_warp();
    else
        sync_block();
}

// a[16 rows, 16 columns] of the convolution of a plane with level l, or of the transposed one. A lane holds the rows
// g and g + 8 (g = lane / 4) of the columns 2q, 2q + 1 (q = lane % 4) and of those 8 further: sums[4 half + 2 row + j].
template <int l, bool TRANSPOSED>
DEVICE void convolve(float sums[8], const Share& s, const u16* plane, int tile) {
    constexpr int size = size_of(l);
    const int lane = lane_of_warp(), g = lane / 4, q = lane % 4, r0 = tile / WT * 16, x0 = tile % WT * 16;
    const u16* rows = plane + (r0 + lane % 16 - size / 2) * PITCH + (NK == 1 ? 0 : x0 - 8) + lane / 16 * 8;
    const u16* pairs = s.taps + (s.channel * ROWS + rows_before(l)) * 2 * TABLE;
    if (TRANSPOSED)
        pairs += (g % 2 ? 0 : TABLE - 1) + 15 - 2 * q + g;
    else
        pairs += (g % 2 ? TABLE - 1 : 0) + 16 + 2 * q - g;
    UNROLL for (int i = 0; i < 8; i++) sums[i] = 0.0f;
    UNROLL for (int dy = 0; dy < size; dy++) {
        u32 w[3];  // of the columns k - x from -8, 0 and 8 on: further away there are no taps
        UNROLL for (int j = 0; j < 3; j++) {
            if (TRANSPOSED)
                w[j] = swapped(word(pairs + (size - 1 - dy) * 2 * TABLE - 8 * (j - 1)));
            else
                w[j] = word(pairs + dy * 2 * TABLE + 8 * (j - 1));
        }
        u32 a[4];
        load_matrices(a, rows + dy * PITCH);
        if (NK == 1) {
            multiply(sums, a, w[1], w[2]);
            multiply(sums + 4, a, w[0], w[1]);
        } else {
            multiply(sums, a, w[0], w[1]);
            multiply(sums + 4, a, 0, w[0]);
            load_matrices(a, rows + dy * PITCH + 16);
            multiply(sums, a, w[2], 0);
            multiply(sums + 4, a, w[1], w[2]);
        }
    }
}

// One of the four pairs of neighbours that a lane holds of a tile.
struct Pair {
    int r, x;
    bool row;
    u32 mask;  // of a word: what lies inside the map

    DEVICE Pair(const Share& s, int tile, int j) {
        const int lane = lane_of_warp();
        r = tile / WT * 16 + lane / 4 + j % 2 * 8;
        x = tile % WT * 16 + lane % 4 * 2 + j / 2 * 8;
        row = r < s.H;
        mask = (x < s.W ? 0xffffu : 0) | (x + 1 < s.W ? 0xffff0000u : 0);
    }
    DEVICE u32 gates(const Share& s, int level) const {
        return row ? word(s.gates + (level * s.H + r) * GATE_PITCH + x) : 0;
    }
};

// Sum over a channel: of the lanes, then of its warps.
DEVICE float sum_channel(const Share& s, int which, float value) {
    value = sum_warp(value);
    if (WPC == 1) return value;
    float* sums = s.sums + (which * CHANNELS + s.channel) * WPC;
    if (lane_of_warp() == 0) sums[s.part] = value;
    sync_block();
    float total = 0.0f;
    UNROLL for (int i = 0; i < WPC; i++) total += sums[i];
    return total;
}

// c = GELU(convolution of a plane) into another one; the sum of c, as far as a lane sees it.
template <int l>
DEVICE float level(const Share& s, const u16* source, u16* target) {
    float total = 0.0f;
    for (int tile = s.part; tile < TILES; tile += WPC) {
        float a[8];
        convolve<l, false>(a, s, source, tile);
        UNROLL for (int i = 0; i < 8; i++) a[i] = gelu(a[i]);
        UNROLL for (int j = 0; j < 4; j++) {
            Pair at(s, tile, j);
            const u32 c = pack(a[2 * j], a[2 * j + 1]) & at.mask;
            if (at.row) {
                set_word(target + at.r * PITCH + at.x, c);
                if (l + 1 == L) total += low(c) + high(c);
            }
        }
    }
    sync_channel();
    return total;
}
