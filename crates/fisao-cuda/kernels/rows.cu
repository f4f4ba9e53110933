// Rows that are looked up, gathered and converted.

// out[row] = table[ids[row]], widened.
//   ids [rows], table [vocabulary, width], out [rows, width] f32; one block a row
KERNEL(embed, const unsigned* ids, const T* table, float* out, int width)
{
    const T* from = table + (long long)ids[blockIdx.x] * width;
    float* to = out + (long long)blockIdx.x * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) to[at] = widened(from[at]);
}

// out[row] = x[(row + 1) · length − 1]: the last row of each sequence.
//   x [sequences · length, width] f32, out [sequences, width] f32; one block a sequence
KERNEL(last_rows, const float* x, float* out, int length, int width)
{
    const float* from = x + ((long long)(blockIdx.x + 1) * length - 1) * width;
    float* to = out + (long long)blockIdx.x * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

// out[row] = x[places[row]], f32; one block a row
KERNEL(gather_rows, const float* x, const int* places, float* out, int width)
{
    const float* from = x + (long long)places[blockIdx.x] * width;
    float* to = out + (long long)blockIdx.x * width;
    for (int at = threadIdx.x; at < width; at += blockDim.x) to[at] = from[at];
}

// out[places[row]] += x[row], f32, in the order of the rows: places may repeat. A thread has a column.
KERNEL(add_rows, const float* x, const int* places, float* out, int rows, int width)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    for (int row = 0; row < rows; row++) out[(long long)places[row] * width + column] += x[(long long)row * width + column];
}

// x[row] += bias, f32; a thread an element.
KERNEL(add_bias, float* x, const float* bias, int rows, int width)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < (long long)rows * width) x[at] += bias[at % width];
}

// f32 → storage type.
KERNEL(narrow, const float* x, T* out, long long count)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < count) out[at] = stored(x[at]);
}

// Copies the keys or values of one sequence to the place of another, in every layer.
//   cache [layers, rows, row_elements]; one grid row a layer
KERNEL(move_row, T* cache, long long layer_elements, long long row_elements, int from, int to)
{
    T* layer = cache + (long long)blockIdx.y * layer_elements;
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at < row_elements) layer[to * row_elements + at] = layer[from * row_elements + at];
}
