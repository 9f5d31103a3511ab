// The gradients of the focal operator; the levels are computed again.

// Buffers: z, c_1 .. c_L, and the gradient of the output. d_l takes the place of c_l, and dz that of z.
constexpr int GRAD = L + 1;

// d_l = (u + g_l dO) GELU'(a_l), where u comes from the level above, or through the mean.
template <int l>
DEVICE void gradient(const Share& s, float through) {
    const u16 *source = s.plane(l), *above = s.plane(l + 2), *grad = s.plane(GRAD);
    u16* target = s.plane(l + 1);
    for (int tile = s.part; tile < TILES; tile += WPC) {
        float a[8], u[8];
        convolve<l, false>(a, s, source, tile);
        if constexpr (l + 1 < L) convolve<l + 1, true>(u, s, above, tile);
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
DEVICE void kernel_gradient(const Share& s, float sums[L][BANDS][4]) {
    constexpr int size = size_of(l), half = size / 2;
    const int lane = lane_of_warp(), g = lane / 4, q = lane % 4, odd = (half + g) % 2;
    const u16* c = s.plane(l) + (lane % 16 - half) * PITCH + lane / 16 * 8;
    const u16* d = s.plane(l + 1) + 2 * q - g + half - odd;  // an odd pair lies in two words
    const u32 bytes = odd ? 0x5432 : 0x3210;
    for (int r = s.part; r < s.H; r += WPC) {
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
// first axis; of the kernels, per chunk of images and warp of a channel, level by level (chunks WPC, taps C), to be
// summed too.
KERNEL(THREADS, BLOCKS) backward(
    const u16* context, const u16* gates, const void* kernel0, const void* kernel1, const void* kernel2,
    const void* kernel3, const u16* grad, u16* grad_context, float* gate_parts, float* weight_parts, int B, int H,
    int W, int C, int context_image, int context_row, int context_column, int gate_image, int gate_row, int gate_column,
    int gate_level, int grad_image, int grad_row, int grad_column, int images, int tail) {
    const void* const kernels[4] = {kernel0, kernel1, kernel2, kernel3};
    const Share s = begin(L + 2, L + 1, tail, H, W, kernels);
    const Pairs pairs(H, W);
    const int plane = s.plane_size();
    const Map z = {context + s.first, context_image, context_row, context_column};
    const Map d = {grad + s.first, grad_image, grad_row, grad_column};
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
        float total = level<0>(s, s.plane(0), s.plane(1)), last = 0.0f;
        if constexpr (L > 1) total = level<1>(s, s.plane(1), s.plane(2));
        if constexpr (L > 2) total = level<2>(s, s.plane(2), s.plane(3));
        if constexpr (L > 3) total = level<3>(s, s.plane(3), s.plane(4));
        for (int tile = s.part; tile < TILES; tile += WPC) {
            UNROLL for (int j = 0; j < 4; j++) {
                Pair at(s, tile, j);
                if (!at.row) continue;
                const u32 gate = at.gates(s, L), g = word(s.plane(GRAD) + at.r * PITCH + at.x);
                last = fma(low(gate), low(g), fma(high(gate), high(g), last));
            }
        }
        const float mean = sum_channel(s, 0, total) / (H * W);
        const float through = sum_channel(s, 1, last) * gelu_slope(mean) / (H * W);
        if (lane_of_warp() == 0) s.pooled[s.channel] = gelu(mean);
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
            const long long map = static_cast<long long>(s.first / VECTOR + part) * B + image;
            float* to = gate_parts + (map * H * W + r * W + x) * (L + 1);
            UNROLL for (int l = 0; l <= L; l++) {
                to[l] = left[l];
                if (x + 1 < W) to[L + 1 + l] = right[l];
            }
        }
        sync_block();

        if constexpr (L > 3) gradient<3>(s, through), kernel_gradient<3>(s, weights);
        if constexpr (L > 2) gradient<2>(s, through), kernel_gradient<2>(s, weights);
        if constexpr (L > 1) gradient<1>(s, through), kernel_gradient<1>(s, weights);
        gradient<0>(s, through), kernel_gradient<0>(s, weights);
        for (int tile = s.part; tile < TILES; tile += WPC) {
            float u[8];
            convolve<0, true>(u, s, s.plane(1), tile);
            UNROLL for (int j = 0; j < 4; j++) {
                Pair at(s, tile, j);
                if (at.row) set_word(s.plane(0) + at.r * PITCH + at.x, pack(u[2 * j], u[2 * j + 1]) & at.mask);
            }
        }
        sync_block();
        store_planes(s, 0, grad_context + image * H * W * C + s.first, C);
    }
    float* parts = weight_parts + (static_cast<long long>(block_y()) * WPC + s.part) * taps_before(L) * C;
    store_weights<0>(parts, weights, C, s.first + s.channel);
    if constexpr (L > 1) store_weights<1>(parts, weights, C, s.first + s.channel);
    if constexpr (L > 2) store_weights<2>(parts, weights, C, s.first + s.channel);
    if constexpr (L > 3) store_weights<3>(parts, weights, C, s.first + s.channel);
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
