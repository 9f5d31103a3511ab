// `focal.cu` for a CPU: the launches that `focalnet.ops.cuda` asks for.
#include "emulator.h"
#include "focal.cu"
#ifdef BACKWARD
#include "backward.cu"
#else
#include "forward.cu"
#endif

#ifndef BACKWARD

extern "C" void launch_forward(
    int grid_x, int grid_y, const u16* context, const u16* gates, const void* kernel0, const void* kernel1,
    const void* kernel2, const void* kernel3, u16* out, int B, int H, int W, int C, int context_image, int context_row,
    int context_column, int gate_image, int gate_row, int gate_column, int gate_level, int images, int tail) {
    emulator::run(grid_x, grid_y, THREADS, [=] {
        forward(context, gates, kernel0, kernel1, kernel2, kernel3, out, B, H, W, C, context_image, context_row,
                context_column, gate_image, gate_row, gate_column, gate_level, images, tail);
    });
}

#else

extern "C" void launch_backward(
    int grid_x, int grid_y, const u16* context, const u16* gates, const void* kernel0, const void* kernel1,
    const void* kernel2, const void* kernel3, const u16* grad, u16* grad_context, float* gate_parts,
    float* weight_parts, int B, int H, int W, int C, int context_image, int context_row, int context_column,
    int gate_image, int gate_row, int gate_column, int gate_level, int grad_image, int grad_row, int grad_column,
    int images, int tail) {
    emulator::run(grid_x, grid_y, THREADS, [=] {
        backward(context, gates, kernel0, kernel1, kernel2, kernel3, grad, grad_context, gate_parts, weight_parts, B, H,
                 W, C, context_image, context_row, context_column, gate_image, gate_row, gate_column, gate_level,
                 grad_image, grad_row, grad_column, images, tail);
    });
}

extern "C" void launch_reduce(int grid_x, int grid_y, const float* gate_parts, u16* gates, int gate_rows,
                              int gate_columns, const float* weight_parts, void* weights, int weight_rows,
                              int weight_columns) {
    emulator::run(grid_x, grid_y, 256, [=] {
        reduce(gate_parts, gates, gate_rows, gate_columns, weight_parts, weights, weight_rows, weight_columns);
    });
}

#endif
