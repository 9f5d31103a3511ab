// The focal operator as one kernel: every level of an image stays in shared memory, and a map is read and written once.
//
// A block owns CHANNELS channels (8, of large maps 4) of one image after the other, WPC warps each of them; a lane reads
// and writes VECTOR of them, 16 bytes, at a position. Maps lie in shared memory as planes, one channel each, rows of PITCH numbers: 8 zeros on the left, W values, zeros up to a multiple of 16;
// the zeros of the next row are those on the right. HALO rows of zeros lie above every plane.
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
// What a multiprocessor does for it is written in `gpu.cu`, which stands before it when it is compiled.
//
// Constants of a compilation: L levels with kernels K0..K3, MT x WT tiles of 16 x 16, CHANNELS, WPC, BLOCKS per
// multiprocessor, HALF float16 instead of bfloat16, WEIGHTS_FLOAT kernels in float32, BACKWARD the gradient instead of
// the function.

DEVICE int lane_of_warp() { return thread() & 31; }

DEVICE constexpr int size_of(int l) { return l == 0 ? K0 : l == 1 ? K1 : l == 2 ? K2 : K3; }
DEVICE constexpr int rows_before(int l) { return l == 0 ? 0 : rows_before(l - 1) + size_of(l - 1); }
DEVICE constexpr int taps_before(int l) { return l == 0 ? 0 : taps_before(l - 1) + size_of(l - 1) * size_of(l - 1); }
DEVICE constexpr int widest(int l) { return l == 0 ? 0 : size_of(l - 1) > widest(l - 1) ? size_of(l - 1) : widest(l - 1); }

constexpr int NK = WT == 1 ? 1 : 2;
constexpr int PITCH = 8 + 16 * WT;
constexpr int HALO = widest(L) / 2;
constexpr int ROWS = rows_before(L);
constexpr int TABLE = 34;
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

// What the warps of a block share. A plane index counts buffers of CHANNELS planes.
struct Shared {
    u16* planes;
    u16* gates;     // [L + 1][H][GATE_PITCH], of the backward pass
    u16* taps;      // [CHANNELS][ROWS][2][TABLE]
    float* sums;    // [2][CHANNELS][WPC]
    float* pooled;  // [CHANNELS]
    int H, W;

    DEVICE u16* plane(int buffer, int channel) const {
        return planes + ((buffer * CHANNELS + channel) * (H + HALO) + HALO) * PITCH + 8;
    }
};

DEVICE Shared carve(u16* memory, int buffers, int gate_maps, int tail, int H, int W) {
    Shared s;
    s.H = H;
    s.W = W;
    s.planes = memory;
    s.gates = memory + (buffers * CHANNELS * (H + HALO) + tail) * PITCH;
    s.taps = s.gates + gate_maps * H * GATE_PITCH;
    s.sums = reinterpret_cast<float*>(s.taps + CHANNELS * ROWS * 2 * TABLE);
    s.pooled = s.sums + 2 * CHANNELS * WPC;
    for (int i = thread(); i < (s.taps - memory) / 2; i += THREADS) set_word(memory + 2 * i, 0);
    return s;
}

DEVICE u16 weight_bits(const void* kernel, int at) {
#if WEIGHTS_FLOAT
    return pack(static_cast<const float*>(kernel)[at], 0.0f) & 0xffff;
#else
    return static_cast<const u16*>(kernel)[at];
#endif
}

DEVICE void load_taps(const Shared& s, const void* const kernels[4], int first) {
    UNROLL for (int l = 0; l < L; l++) {
        const int size = size_of(l), shift = 16 - size / 2;
        for (int i = thread(); i < CHANNELS * size * 2 * TABLE; i += THREADS) {
            int at = i % TABLE, copy = i / TABLE % 2, row = i / (2 * TABLE);  // row of all channels
            int dx = at + copy - shift, channel = row / size, dy = row % size;
            bool inside = dx >= 0 && dx < size;
            s.taps[((channel * ROWS + rows_before(l) + dy) * 2 + copy) * TABLE + at] =
                inside ? weight_bits(kernels[l], ((first + channel) * size + dy) * size + dx) : 0;
        }
    }
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

DEVICE void store_planes(const Shared& s, int buffer, u16* target, int channels) {
    const Pairs pairs(s.H, s.W);
    const int plane = (s.H + HALO) * PITCH;
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
DEVICE void convolve(float sums[8], const u16* plane, const u16* taps, int tile) {
    constexpr int size = size_of(l);
    const int lane = lane_of_warp(), g = lane / 4, q = lane % 4, r0 = tile / WT * 16, x0 = tile % WT * 16;
    const u16* rows = plane + (r0 + lane % 16 - size / 2) * PITCH + (NK == 1 ? 0 : x0 - 8) + lane / 16 * 8;
    const u16* pairs = taps + rows_before(l) * 2 * TABLE;
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

    DEVICE Pair(const Shared& s, int tile, int j) {
        const int lane = lane_of_warp();
        r = tile / WT * 16 + lane / 4 + j % 2 * 8;
        x = tile % WT * 16 + lane % 4 * 2 + j / 2 * 8;
        row = r < s.H;
        mask = (x < s.W ? 0xffffu : 0) | (x + 1 < s.W ? 0xffff0000u : 0);
    }
    DEVICE u32 gates(const Shared& s, int level) const {
        return row ? word(s.gates + (level * s.H + r) * GATE_PITCH + x) : 0;
    }
};

// Sum over a channel: of the lanes, then of its warps.
DEVICE float sum_channel(const Shared& s, int which, float value, int channel, int part) {
    value = sum_warp(value);
    if (WPC == 1) return value;
    float* sums = s.sums + (which * CHANNELS + channel) * WPC;
    if (lane_of_warp() == 0) sums[part] = value;
    sync_block();
    float total = 0.0f;
    UNROLL for (int i = 0; i < WPC; i++) total += sums[i];
    return total;
}

// c = GELU(convolution of a plane) into another one; the sum of c, as far as a lane sees it.
template <int l>
DEVICE float level(const Shared& s, const u16* source, u16* target, int part, const u16* taps) {
    float total = 0.0f;
    for (int tile = part; tile < TILES; tile += WPC) {
        float a[8];
        convolve<l, false>(a, source, taps, tile);
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

#if !BACKWARD

// Where c_l lies: c_2 over z, which only c_1 needs.
DEVICE constexpr int buffer_of(int l) { return l == 0 ? 1 : l == 1 ? 0 : l; }

// out = sum_l g_l c_l + g_{L+1} GELU(mean(c_L)).
KERNEL(THREADS, BLOCKS) forward(
    const u16* context, const u16* gates, const void* kernel0, const void* kernel1, const void* kernel2,
    const void* kernel3, u16* out, int B, int H, int W, int C, int context_image, int context_row, int context_column,
    int gate_image, int gate_row, int gate_column, int gate_level, int images, int tail) {
    const Shared s = carve(shared_memory(), L > 2 ? L : 2, 0, tail, H, W);
    const int group = block_x(), warp = thread() / 32, channel = warp / WPC, part = warp % WPC;
    const void* const kernels[4] = {kernel0, kernel1, kernel2, kernel3};
    load_taps(s, kernels, group * CHANNELS);
    const u16* taps = s.taps + channel * ROWS * 2 * TABLE;
    const Pairs pairs(H, W);
    const int plane = (H + HALO) * PITCH;
    const Map z = {context + group * CHANNELS, context_image, context_row, context_column};
    const Map gate = {gates, gate_image, gate_row, gate_column};
    for (int i = 0; i < images; i++) {
        const long long image = block_y() * images + i;
        if (image >= B) break;
        sync_block();
        u32 words[L + 1];
        for (int u = thread(); u < pairs.count * VECTORS; u += THREADS) {
            const int p = u / VECTORS, first = u % VECTORS * VECTOR, r = pairs.row(p), x = 2 * (p - r * pairs.columns);
            const bool both = x + 1 < W, more = i + 1 < images && image + 1 < B;
            const u16* at = z.at(image, r, x) + first;
            const Vector a = load_vector(at), b = both ? load_vector(at + z.column) : Vector{};
            if (TILES == 1) read_gates(words, gate, gate_level, image, r, x, both);  // a lane has one pair
            if (more) prefetch(at + z.image), prefetch(at + z.image + (both ? z.column : 0));
            store_words(s.plane(0, first) + r * PITCH + x, plane, a, b);
        }
        sync_block();
        u16* c[L + 1] = {s.plane(0, channel)};
        UNROLL for (int l = 0; l < L; l++) c[l + 1] = s.plane(buffer_of(l), channel);
        float total = level<0>(s, c[0], c[1], part, taps);
        if constexpr (L > 1) total = level<1>(s, c[1], c[2], part, taps);
        if constexpr (L > 2) total = level<2>(s, c[2], c[3], part, taps);
        if constexpr (L > 3) total = level<3>(s, c[3], c[4], part, taps);
        const float pooled = gelu(sum_channel(s, 0, total, channel, part) / (H * W));
        if (lane_of_warp() == 0) s.pooled[channel] = pooled;
        sync_block();
        for (int u = thread(); u < pairs.count * VECTORS; u += THREADS) {
            const int p = u / VECTORS, first = u % VECTORS * VECTOR, r = pairs.row(p), x = 2 * (p - r * pairs.columns);
            if (TILES > 1) read_gates(words, gate, gate_level, image, r, x, x + 1 < W);
            const u16* from = s.plane(0, first) + r * PITCH + x;
            Vector a, b;
            UNROLL for (int i = 0; i < VECTOR; i += 2) {
                u32 both[2];
                UNROLL for (int j = 0; j < 2; j++) {
                    const float pooled = s.pooled[first + i + j];
                    float one = low(words[L]) * pooled, other = high(words[L]) * pooled;
                    UNROLL for (int l = 0; l < L; l++) {
                        const u32 pair = word(from + (buffer_of(l) * CHANNELS + i + j) * plane);
                        one = fma(low(words[l]), low(pair), one);
                        other = fma(high(words[l]), high(pair), other);
                    }
                    both[j] = pack(one, other);
                }
                a.at[i / 2] = both_low(both[0], both[1]);
                b.at[i / 2] = both_high(both[0], both[1]);
            }
            store_pair(out + (image * H * W + r * W + x) * C + group * CHANNELS + first, a, b, C, x + 1 < W);
        }
    }
}

#else

// Buffers: z, c_1 .. c_L, and the gradient of the output. d_l takes the place of c_l, and dz that of z.
constexpr int GRAD = L + 1;

// d_l = (u + g_l dO) GELU'(a_l), where u comes from the level above, or through the mean.
template <int l>
DEVICE void gradient(const Shared& s, int channel, int part, const u16* taps, float through) {
    const u16 *source = s.plane(l, channel), *above = s.plane(l + 2, channel), *grad = s.plane(GRAD, channel);
    u16* target = s.plane(l + 1, channel);
    for (int tile = part; tile < TILES; tile += WPC) {
        float a[8], u[8];
        convolve<l, false>(a, source, taps, tile);
        if constexpr (l + 1 < L) convolve<l + 1, true>(u, above, taps, tile);
        UNROLL for (int i = 0; i < 8; i++) a[i] = gelu_slope(a[i]);
        UNROLL for (int j = 0; j < 4; j++) {
            Pair at(s, tile, j);
            if (!at.row) continue;
            const int to = at.r * PITCH + at.x;
            const u32 gate = at.gates(s, l), g = word(grad + to);
            const float left = fma(low(gate), low(g), l + 1 < L ? u[2 * j] : through) * a[2 * j];
            const float right = fma(high(gate), high(g), l + 1 < L ? u[2 * j + 1] : through) * a[2 * j + 1];
            set_word(target + to, pack(left, right) & at.mask);
        }
    }
    sync_channel();
}

constexpr int BANDS = (widest(L) + 7) / 8;  // of 8 columns dx

template <int l>
DEVICE void kernel_gradient(const Shared& s, int channel, int part, float sums[L][BANDS][4]) {
    constexpr int size = size_of(l), half = size / 2;
    const int lane = lane_of_warp(), g = lane / 4, q = lane % 4, odd = (half + g) % 2;
    const u16* c = s.plane(l, channel) + (lane % 16 - half) * PITCH + lane / 16 * 8;
    const u16* d = s.plane(l + 1, channel) + 2 * q - g + half - odd;  // an odd pair lies in two words
    const u32 bytes = odd ? 0x5432 : 0x3210;
    for (int r = part; r < s.H; r += WPC) {
        UNROLL for (int x0 = 0; x0 < 16 * WT; x0 += 16) {
            u32 a[4];
            load_matrices(a, c + r * PITCH + x0);
            UNROLL for (int band = 0; band < (size + 7) / 8; band++) {
                const u16* pairs = d + r * PITCH + x0 - 8 * band;
                multiply(sums[l][band], a, bytes_of(word(pairs), word(pairs + 2), bytes),
                         bytes_of(word(pairs + 8), word(pairs + 10), bytes));
            }
        }
    }
    sync_channel();
}

template <int l>
DEVICE void store_weights(float* parts, const float sums[L][BANDS][4], int C, int channel) {
    constexpr int size = size_of(l);
    const int lane = lane_of_warp();
    float* target = parts + taps_before(l) * C + channel * size * size;
    UNROLL for (int band = 0; band < (size + 7) / 8; band++) {
        UNROLL for (int i = 0; i < 4; i++) {
            int dy = lane / 4 + i / 2 * 8, dx = band * 8 + lane % 4 * 2 + i % 2;
            if (dy < size && dx < size) target[dy * size + dx] = sums[l][band][i];
        }
    }
}

// Gradients: of the context; of the gates, per VECTOR of channels (C / VECTOR, B, H, W, L + 1), to be summed over the
// first axis; of the kernels, per chunk of images and warp of a channel, level by level (chunks WPC, taps C), to be summed
// too.
KERNEL(THREADS, BLOCKS) backward(
    const u16* context, const u16* gates, const void* kernel0, const void* kernel1, const void* kernel2,
    const void* kernel3, const u16* grad, u16* grad_context, float* gate_parts, float* weight_parts, int B, int H, int W,
    int C, int context_image, int context_row, int context_column, int gate_image, int gate_row, int gate_column,
    int gate_level, int grad_image, int grad_row, int grad_column, int images, int tail) {
    const Shared s = carve(shared_memory(), L + 2, L + 1, tail, H, W);
    const int group = block_x(), warp = thread() / 32, channel = warp / WPC, part = warp % WPC;
    const void* const kernels[4] = {kernel0, kernel1, kernel2, kernel3};
    load_taps(s, kernels, group * CHANNELS);
    const u16* taps = s.taps + channel * ROWS * 2 * TABLE;
    const Pairs pairs(H, W);
    const int plane = (H + HALO) * PITCH;
    const Map z = {context + group * CHANNELS, context_image, context_row, context_column};
    const Map d = {grad + group * CHANNELS, grad_image, grad_row, grad_column};
    const Map gate = {gates, gate_image, gate_row, gate_column};
    float weights[L][BANDS][4] = {};
    for (int i = 0; i < images; i++) {
        const long long image = block_y() * images + i;
        if (image >= B) break;
        sync_block();
        for (int u = thread(); u < pairs.count * VECTORS; u += THREADS) {
            const int p = u / VECTORS, first = u % VECTORS * VECTOR, r = pairs.row(p), x = 2 * (p - r * pairs.columns);
            const bool both = x + 1 < W, more = i + 1 < images && image + 1 < B;
            const u16 *at = z.at(image, r, x) + first, *beside = d.at(image, r, x) + first;
            const Vector a = load_vector(at), b = both ? load_vector(at + z.column) : Vector{};
            const Vector c = load_vector(beside), e = both ? load_vector(beside + d.column) : Vector{};
            u32 words[L + 1];
            if (first == 0) read_gates(words, gate, gate_level, image, r, x, both);
            if (more) prefetch(at + z.image), prefetch(at + z.image + (both ? z.column : 0));
            if (more) prefetch(beside + d.image), prefetch(beside + d.image + (both ? d.column : 0));
            store_words(s.plane(0, first) + r * PITCH + x, plane, a, b);
            store_words(s.plane(GRAD, first) + r * PITCH + x, plane, c, e);
            if (first == 0)
                UNROLL for (int l = 0; l <= L; l++)
                    set_word(s.gates + (l * H + r) * GATE_PITCH + x, words[l] & (both ? ~0u : 0xffffu));
        }
        sync_block();
        float total = level<0>(s, s.plane(0, channel), s.plane(1, channel), part, taps), last = 0.0f;
        if constexpr (L > 1) total = level<1>(s, s.plane(1, channel), s.plane(2, channel), part, taps);
        if constexpr (L > 2) total = level<2>(s, s.plane(2, channel), s.plane(3, channel), part, taps);
        if constexpr (L > 3) total = level<3>(s, s.plane(3, channel), s.plane(4, channel), part, taps);
        for (int tile = part; tile < TILES; tile += WPC) {
            UNROLL for (int j = 0; j < 4; j++) {
                Pair at(s, tile, j);
                if (!at.row) continue;
                const u32 gate = at.gates(s, L), g = word(s.plane(GRAD, channel) + at.r * PITCH + at.x);
                last = fma(low(gate), low(g), fma(high(gate), high(g), last));
            }
        }
        const float mean = sum_channel(s, 0, total, channel, part) / (H * W);
        const float through = sum_channel(s, 1, last, channel, part) * gelu_slope(mean) / (H * W);
        if (lane_of_warp() == 0) s.pooled[channel] = gelu(mean);
        sync_block();

        for (int u = thread(); u < pairs.count * VECTORS; u += THREADS) {
            const int p = u / VECTORS, part = u % VECTORS, r = pairs.row(p), x = 2 * (p - r * pairs.columns);
            const int at = r * PITCH + x;
            float left[L + 1] = {}, right[L + 1] = {};
            UNROLL for (int i = 0; i < VECTOR; i++) {
                const int c = part * VECTOR + i;
                const u32 g = word(s.plane(GRAD, c) + at);
                UNROLL for (int l = 0; l < L; l++) {
                    const u32 level = word(s.plane(l + 1, c) + at);
                    left[l] = fma(low(g), low(level), left[l]);
                    right[l] = fma(high(g), high(level), right[l]);
                }
                left[L] = fma(low(g), s.pooled[c], left[L]);
                right[L] = fma(high(g), s.pooled[c], right[L]);
            }
            float* to = gate_parts + (((group * VECTORS + part) * static_cast<long long>(B) + image) * H * W + r * W + x) * (L + 1);
            UNROLL for (int l = 0; l <= L; l++) {
                to[l] = left[l];
                if (x + 1 < W) to[L + 1 + l] = right[l];
            }
        }
        sync_block();

        if constexpr (L > 3) gradient<3>(s, channel, part, taps, through), kernel_gradient<3>(s, channel, part, weights);
        if constexpr (L > 2) gradient<2>(s, channel, part, taps, through), kernel_gradient<2>(s, channel, part, weights);
        if constexpr (L > 1) gradient<1>(s, channel, part, taps, through), kernel_gradient<1>(s, channel, part, weights);
        gradient<0>(s, channel, part, taps, through), kernel_gradient<0>(s, channel, part, weights);
        for (int tile = part; tile < TILES; tile += WPC) {
            float u[8];
            convolve<0, true>(u, s.plane(1, channel), taps, tile);
            UNROLL for (int j = 0; j < 4; j++) {
                Pair at(s, tile, j);
                if (at.row) set_word(s.plane(0, channel) + at.r * PITCH + at.x, pack(u[2 * j], u[2 * j + 1]) & at.mask);
            }
        }
        sync_block();
        store_planes(s, 0, grad_context + image * H * W * C + group * CHANNELS, C);
    }
    float* parts = weight_parts + (static_cast<long long>(block_y()) * WPC + part) * taps_before(L) * C;
    store_weights<0>(parts, weights, C, group * CHANNELS + channel);
    if constexpr (L > 1) store_weights<1>(parts, weights, C, group * CHANNELS + channel);
    if constexpr (L > 2) store_weights<2>(parts, weights, C, group * CHANNELS + channel);
    if constexpr (L > 3) store_weights<3>(parts, weights, C, group * CHANNELS + channel);
}

DEVICE float sum_rows(const float* parts, int rows, long long columns, long long column) {
    float total = 0.0f;
    UNROLL_BY_8 for (int row = 0; row < rows; row++) total += parts[row * columns + column];
    return total;
}

// The sums over the rows of both kinds of parts: gates in the type of the map, weights in that of the kernels.
KERNEL(256, 1) reduce(const float* gate_parts, u16* gates, int gate_rows, int gate_columns, const float* weight_parts,
                      void* weights, int weight_rows, int weight_columns) {
    const long long at = static_cast<long long>(block_x()) * 256 + thread();
    if (at < gate_columns) {
        gates[at] = pack(sum_rows(gate_parts, gate_rows, gate_columns, at), 0.0f) & 0xffff;
    } else if (at - gate_columns < weight_columns) {
        const float total = sum_rows(weight_parts, weight_rows, weight_columns, at - gate_columns);
#if WEIGHTS_FLOAT
        static_cast<float*>(weights)[at - gate_columns] = total;
#else
        static_cast<u16*>(weights)[at - gate_columns] = pack(total, 0.0f) & 0xffff;
#endif
    }
}

#endif
