// The focal operator: all levels of a block of channels, then their sum.

// Where c_l lies: c_2 over z, which only c_1 needs.
DEVICE constexpr int buffer_of(int l) { return l == 0 ? 1 : l == 1 ? 0 : l; }

// out = sum_l g_l c_l + g_{L+1} GELU(mean(c_L)).
KERNEL(THREADS, BLOCKS) forward(
    const u16* context, const u16* gates, const void* kernel0, const void* kernel1, const void* kernel2,
    const void* kernel3, u16* out, int B, int H, int W, int C, int context_image, int context_row, int context_column,
    int gate_image, int gate_row, int gate_column, int gate_level, int images, int tail) {
    const void* const kernels[4] = {kernel0, kernel1, kernel2, kernel3};
    const Share s = begin(L > 2 ? L : 2, 0, tail, H, W, kernels);
    const Pairs pairs(H, W);
    const int plane = s.plane_size();
    const Map z = {context + s.first, context_image, context_row, context_column};
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
        u16* c[L + 1] = {s.plane(0)};
        UNROLL for (int l = 0; l < L; l++) c[l + 1] = s.plane(buffer_of(l));
        float total = level<0>(s, c[0], c[1]);
        if constexpr (L > 1) total = level<1>(s, c[1], c[2]);
        if constexpr (L > 2) total = level<2>(s, c[2], c[3]);
        if constexpr (L > 3) total = level<3>(s, c[3], c[4]);
        const float pooled = gelu(sum_channel(s, 0, total) / (H * W));
        if (lane_of_warp() == 0) s.pooled[s.channel] = pooled;
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
            store_pair(out + (image * H * W + r * W + x) * C + s.first + first, a, b, C, x + 1 < W);
        }
    }
}
