// Choice of the next token by the rule of the sampler on the CPU, in f64 as there.

// Threads of a block: f64 takes so many registers that a block of 1024 would not run.
#define SAMPLERS 512
// Threads whose sums are added up by one.
#define EACH (SAMPLERS / 32)

// One token of each row with its log-probability. A row's weights are e^{(logit − largest) · scale}; the token is the first at which the
// sum of the weights up to it exceeds `uniform` times the sum of all. A scale of 0 takes the most likely token, the first of equals, and its
// log-probability at temperature 1.
//   logits [rows, vocabulary] f32; draws [rows, 2] f64: scale, uniform; tokens [rows]; out [rows] f32
//   one block a row, SAMPLERS threads, of which each has neighbouring tokens
KERNEL(sample, const float* logits, const double* draws, unsigned* tokens, float* out, int vocabulary)
{
    __shared__ float scratch[32];
    __shared__ int places[32];
    __shared__ double sums[SAMPLERS];
    __shared__ double group_sums[32];
    const float* row = logits + (long long)blockIdx.x * vocabulary;
    double scale = draws[2 * blockIdx.x], uniform = draws[2 * blockIdx.x + 1];
    bool most_likely = scale == 0.0;
    if (most_likely) scale = 1.0;
    float most = MINUS_INFINITY;
    for (int at = threadIdx.x; at < vocabulary; at += SAMPLERS) most = fmaxf(most, row[at]);
    most = block_max(most, scratch);
    int each = (vocabulary + SAMPLERS - 1) / SAMPLERS;
    int first = min(vocabulary, (int)threadIdx.x * each), end = min(vocabulary, first + each);
    double sum = 0.0;
    int place = vocabulary;
    for (int at = first; at < end; at++) {
        sum += exp((double)(row[at] - most) * scale);
        if (row[at] >= most) place = min(place, at);
    }
    sums[threadIdx.x] = sum;
    for (int step = 16; step > 0; step /= 2) place = min(place, __shfl_xor_sync(ALL_LANES, place, step));
    if (threadIdx.x % 32 == 0) places[threadIdx.x / 32] = place;
    __syncthreads();
    if (threadIdx.x < 32) {
        double group = 0.0;
        for (int at = 0; at < EACH; at++) group += sums[threadIdx.x * EACH + at];
        group_sums[threadIdx.x] = group;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0.0;
    for (int group = 0; group < 32; group++) total += group_sums[group];
    int chosen = vocabulary;
    if (most_likely) {
        for (int warp = 0; warp < SAMPLERS / 32; warp++) chosen = min(chosen, places[warp]);
    } else {
        double left = uniform * total;
        int group = 0, thread;
        while (group < 31 && left >= group_sums[group]) left -= group_sums[group++];
        for (thread = group * EACH; thread < group * EACH + EACH - 1 && left >= sums[thread]; thread++) left -= sums[thread];
        for (int at = min(vocabulary, thread * each); at < vocabulary; at++) {
            left -= exp((double)(row[at] - most) * scale);
            if (left < 0.0) {
                chosen = at;
                break;
            }
        }
        // Rounding may leave something; a token that is banned has no weight.
        for (int at = vocabulary - 1; at >= 0 && chosen == vocabulary; at--) {
            if (exp((double)(row[at] - most) * scale) > 0.0) chosen = at;
        }
    }
    if (chosen == vocabulary) chosen = most_likely ? 0 : vocabulary - 1;
    tokens[blockIdx.x] = (unsigned)chosen;
    out[blockIdx.x] = (float)((double)(row[chosen] - most) * scale - log(total));
}
