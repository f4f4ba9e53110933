// Activations of the feed-forward parts, elementwise.

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// silu(gate) · up, of a fused matrix.
//   gate_up [rows, 2 · width]: gate, then up; out [rows, width]; a thread an element
KERNEL(swiglu, const T* gate_up, T* out, int rows, int width)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)rows * width) return;
    const T* row = gate_up + at / width * 2 * width;
    int column = (int)(at % width);
    float gate = widened(row[column]);
    out[at] = stored(gate * sigmoid(gate) * widened(row[width + column]));
}

// Gradients of gate and up.
//   gate_up, gradient [rows, 2 · width], by_output [rows, width]
KERNEL(swiglu_backward, const T* gate_up, const T* by_output, T* gradient, int rows, int width)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)rows * width) return;
    long long first = at / width * 2 * width;
    int column = (int)(at % width);
    float gate = widened(gate_up[first + column]), up = widened(gate_up[first + width + column]);
    float g = widened(by_output[at]), s = sigmoid(gate);
    gradient[first + column] = stored(g * up * s * (1.0f + gate * (1.0f - s)));
    gradient[first + width + column] = stored(g * gate * s);
}

// x ← gelu(x + bias): form 0 by the error function, 1 by tanh, 2 the quick form x σ(1.702 x).
//   x [rows, width], bias [width] f32 or null
KERNEL(gelu, T* x, const float* bias, int rows, int width, int form)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (long long)rows * width) return;
    float value = widened(x[at]);
    if (bias) value += bias[at % width];
    float y;
    if (form == 0) {
        y = 0.5f * value * (1.0f + erff(value * 0.70710678118654752f));
    } else if (form == 1) {
        float inner = 0.79788456080286536f * (value + 0.044715f * value * value * value);
        y = 0.5f * value * (1.0f + tanhf(inner));
    } else {
        y = value * sigmoid(1.702f * value);
    }
    x[at] = stored(y);
}
