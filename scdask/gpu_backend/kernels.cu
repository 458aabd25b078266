// CUDA kernels over packed words, for gpu_backend.
//
// Bit t of a stream is bit t % 64 of word t / 64; the words of a stream are contiguous, streams follow one another.
// No kernel assumes a launch shape beyond the block sizes that gpu_backend gives: work is dealt out in grid strides.
// Without a CUDA compiler, the functions of the first section come from the program that includes this file.
// launch.py writes in front of it the type `word`, the gates by their numbers (`gate_of`), and Threefry's constants.

typedef long long i64;

__device__ const int WORD = 64;

// What only the hardware does

#if __CUDA_ARCH__ >= 800

// Copy BYTES bytes to shared memory in the background; past `valid` bytes zeros are written and nothing is read.
template <int BYTES>
__device__ inline void copy_async(void *shared, const void *global, int valid) {
  unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(global), "r"(valid) : "memory");
}

__device__ inline void end_of_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until all groups of copies but the last PENDING have arrived.
template <int PENDING>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Load four matrices of 8 rows of 16 bytes: lane l gives the address of row l % 8 of matrix l / 8, and gets from each
// matrix the four bytes from 4 * (l % 4) on of row l / 4.
__device__ inline void load_matrices(unsigned (&out)[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((unsigned)__cvta_generic_to_shared(row))
               : "memory");
}

// counts (16, 8) += ones of a (16 rows of 256 bits) AND b (8 rows of 256 bits), on the 1-bit tensor cores.
__device__ inline void tensor_and_popcount(int (&counts)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(counts[0]), "+r"(counts[1]), "+r"(counts[2]), "+r"(counts[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

__device__ inline i64 thread_number() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline i64 thread_count() { return (i64)gridDim.x * blockDim.x; }

// Pack and unpack: each thread handles 8 bits, which are one byte of the packed words.

__device__ const word LOW_BITS = 0x0101010101010101ull;
__device__ const word LOW_SEVEN = 0x7f7f7f7f7f7f7f7full;

// Turn each byte that is not 0 into a 1.
__device__ inline word nonzero_bytes(word bytes) {
  return (((bytes & LOW_SEVEN) + LOW_SEVEN) | bytes) >> 7 & LOW_BITS;
}

// `other` is set where a byte is neither 0 nor 1.
extern "C" __global__ void pack(const unsigned char *bits, i64 rows, i64 length, i64 n_words,
                                unsigned char *packed, int *other) {
  i64 row_bytes = 8 * n_words;
  bool aligned = length % 8 == 0 && (word)bits % 8 == 0;
  bool seen = false;
  for (i64 i = thread_number(); i < rows * row_bytes; i += thread_count()) {
    i64 row = i / row_bytes, first = 8 * (i - row * row_bytes);
    const unsigned char *source = bits + row * length + first;
    word bytes = 0;
    if (aligned && first < length)
      bytes = *(const word *)source;
    else
      for (int t = 0; t < 8 && first + t < length; t++) bytes |= (word)source[t] << (8 * t);
    seen |= (bytes & ~LOW_BITS) != 0;
    packed[i] = (unsigned char)(nonzero_bytes(bytes) * 0x0102040810204080ull >> 56);
  }
  if (seen) *other = 1;
}

extern "C" __global__ void unpack(const unsigned char *packed, i64 rows, i64 length, i64 n_words,
                                  unsigned char *bits) {
  i64 used = (length + 7) / 8;
  bool aligned = length % 8 == 0 && (word)bits % 8 == 0;
  for (i64 i = thread_number(); i < rows * used; i += thread_count()) {
    i64 row = i / used, byte = i - row * used;
    unsigned char *target = bits + row * length + 8 * byte;
    word chosen = packed[row * 8 * n_words + byte] * LOW_BITS & 0x8040201008040201ull;
    word bytes = nonzero_bytes(chosen);
    if (aligned)
      *(word *)target = bytes;
    else
      for (int t = 0; t < 8 && 8 * byte + t < length; t++) target[t] = (unsigned char)(bytes >> (8 * t));
  }
}

// gates

// Words (n0, n1, n2, n_words) of up to three operands, whose steps along the first three axes are given, 0 where an
// operand is broadcast. `last` is the mask of the bits that are kept of the last word of a stream.
extern "C" __global__ void gate(int kind, const word *a, i64 a0, i64 a1, i64 a2, const word *b, i64 b0, i64 b1, i64 b2,
                                const word *c, i64 c0, i64 c1, i64 c2, i64 n0, i64 n1, i64 n2, i64 n_words, word last,
                                word *out) {
  i64 total = n0 * n1 * n2 * n_words;
  bool rows = n_words < total, broadcast = n1 > 1 || n2 > 1;  // Needless divisions cost more than the gate.
  for (i64 i = thread_number(); i < total; i += thread_count()) {
    i64 row = rows ? i / n_words : 0, w = i - row * n_words;
    i64 i2 = broadcast ? row % n2 : 0, i01 = broadcast ? row / n2 : row;
    i64 i1 = broadcast ? i01 % n1 : 0, i0 = broadcast ? i01 / n1 : row;
    word x = a[i0 * a0 + i1 * a1 + i2 * a2 + w];
    word y = b ? b[i0 * b0 + i1 * b1 + i2 * b2 + w] : 0;
    word z = c ? c[i0 * c0 + i1 * c1 + i2 * c2 + w] : 0;
    word result = gate_of(kind, x, y, z);
    out[i] = w == n_words - 1 ? result & last : result;
  }
}

// popcount

extern "C" __global__ void popcount_words(const word *words, i64 n, unsigned char *ones) {
  for (i64 i = thread_number(); i < n; i += thread_count()) ones[i] = (unsigned char)__popcll(words[i]);
}

// Each row is cut into `parts`, and each part is counted by `lanes` threads of a warp, a power of 2. With several parts
// the counts must be 0 before the launch.
extern "C" __global__ void popcount_streams(const word *words, i64 rows, i64 n_words, int lanes, i64 parts,
                                            word *ones) {
  i64 warp = thread_number() / 32, lane = threadIdx.x % 32;
  i64 together = 32 / lanes, part_words = (n_words + parts - 1) / parts;
  for (i64 first = warp * together; first < rows * parts; first += thread_count() / 32 * together) {
    i64 item = first + lane / lanes, row = item / parts;
    i64 start = (item - row * parts) * part_words;
    i64 stop = start + part_words < n_words ? start + part_words : n_words;
    word total = 0;
    if (row < rows) {
#pragma unroll 4
      for (i64 w = start + lane % lanes; w < stop; w += lanes) total += __popcll(words[row * n_words + w]);
    }
    for (int apart = lanes / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(0xffffffffu, total, apart);
    if (row < rows && lane % lanes == 0) {
      if (parts == 1)
        ones[row] = total;
      else
        atomicAdd(&ones[row], total);
    }
  }
}

// Machines

// Run a machine over streams, each in a thread, from `states`, which become the last ones. The tables are those of
// core/machines.py. Operands have k words at a time, each from the row that its rows say, as they may be broadcast.
extern "C" __global__ void run_machine(const unsigned *look_ups, const unsigned *single_steps, int k, int m,
                                       const word *x, const i64 *x_rows, const word *y, const i64 *y_rows,
                                       const word *z, const i64 *z_rows, i64 rows, i64 length, i64 n_words,
                                       unsigned char *states, word *out0, word *out1) {
  int n = k == 1 ? 8 : k == 2 ? 4 : 2;
  i64 whole = length / WORD;
  int rest = (int)(length % WORD);
  for (i64 row = thread_number(); row < rows; row += thread_count()) {
    const word *operands[3] = {x + x_rows[row] * n_words, k > 1 ? y + y_rows[row] * n_words : x,
                               k > 2 ? z + z_rows[row] * n_words : x};
    unsigned state = states[row];
    for (i64 w = 0; w < whole + (rest > 0); w++) {
      int at_once = w < whole ? n : 1, steps = w < whole ? WORD : rest;
      const unsigned *table = w < whole ? look_ups : single_steps;
      word given[3], low = (1ull << at_once) - 1, first = 0, second = 0;
      for (int i = 0; i < 3; i++) given[i] = i < k ? operands[i][w] : 0;
      for (int t = 0; t < steps; t += at_once) {
        unsigned entry_at = state << (at_once * k);
        for (int i = 0; i < 3; i++) entry_at |= i < k ? (unsigned)(given[i] >> t & low) << (at_once * i) : 0;
        unsigned entry = table[entry_at];
        first |= (entry & low) << t;
        second |= (entry >> at_once & low) << t;
        state = entry >> (16 + at_once * k);
      }
      out0[row * n_words + w] = first;
      if (m == 2) out1[row * n_words + w] = second;
    }
    states[row] = (unsigned char)state;
  }
}

// Encoding

// Threefry2x64 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011).
__device__ inline void threefry(word key0, word key1, word &x0, word &x1) {
  const int rotations[8] = THREEFRY_ROTATIONS;
  const word keys[3] = {key0, key1, THREEFRY_PARITY ^ key0 ^ key1};
  x0 += key0;
  x1 += key1;
#pragma unroll
  for (int i = 0; i < THREEFRY_ROUNDS; i++) {
    x0 += x1;
    x1 = (x1 << rotations[i % 8] | x1 >> (64 - rotations[i % 8])) ^ x0;
    if (i % 4 == 3) {
      int j = i / 4 + 1;
      x0 += keys[j % 3];
      x1 += keys[(j + 1) % 3] + j;
    }
  }
}

// The 64 binary digits, rounded up, of a probability below 1 whose double has the bits `p`.
__device__ inline word digits_of(word p) {
  int exponent = (int)(p >> 52) & 2047;  // -0 has a sign above it.
  word mantissa = (p & 0xfffffffffffffull) | (exponent ? 1ull << 52 : 0);
  int shift = 1011 - (exponent ? exponent : 1);
  if (shift <= 0) return mantissa << -shift;
  shift = shift < 63 ? shift : 63;
  return (mantissa + (1ull << shift) - 1) >> shift;
}

// 64 bits, each 1 with the probability whose double has the bits `p`: the binary digits of a random number are compared
// with those of p, from the first on, until all 64 comparisons are decided. They come from SFC64 (Doty-Humphrey:
// PractRand), which starts from words of Threefry.
__device__ inline word bernoulli_word(word p, word stream, word index, word key0, word key1) {
  if (p == 0x3ff0000000000000ull) return ~0ull;
  word digits = digits_of(p), a = stream, b = index;
  threefry(key0, key1, a, b);
  word c = a ^ (b << 24 | b >> 40);
  word undecided = ~0ull, result = 0;
  for (word count = 1; undecided && digits; count++) {
    word number = a + b + count, digit = 0 - (digits >> (WORD - 1));
    a = b ^ b >> 11;
    b = c + (c << 3);
    c = (c << 24 | c >> 40) + number;
    result |= undecided & digit & ~number;
    undecided &= ~(number ^ digit);
    digits <<= 1;
  }
  return result;
}

// Words `first` to first + n_words of the streams of n probabilities, given as the bits of doubles. `last` is the
// mask of the bits that are kept of the last word.
extern "C" __global__ void bernoulli(const word *p, const word *streams, i64 n, word first, i64 n_words, word key0,
                                     word key1, word last, word *out) {
  for (i64 i = thread_number(); i < n * n_words; i += thread_count()) {
    i64 stream = i / n_words, w = i - stream * n_words;
    word bits = bernoulli_word(p[stream], streams[stream], first + w, key0, key1);
    out[i] = w == n_words - 1 ? bits & last : bits;
  }
}

// Row k of the table is the stream of all probabilities that k of the ranked numbers are below; it goes into columns
// `first` to first + table_words of the output.
extern "C" __global__ void look_up(const double *p, i64 n, const double *ranked, int count, const word *table,
                                   i64 table_words, i64 first, i64 n_words, word *out) {
  for (i64 i = thread_number(); i < n * table_words; i += thread_count()) {
    i64 stream = i / table_words, w = i - stream * table_words;
    int low = 0, high = count;
    while (low < high) {
      int middle = (low + high) / 2;
      if (ranked[middle] < p[stream])
        low = middle + 1;
      else
        high = middle;
    }
    out[stream * n_words + first + w] = table[low * table_words + w];
  }
}

// Adders

__device__ const int MOST_DIGITS = 32;

// The binary digits of the counts at each bit, words (rows, total, n_words) of words (rows, n, n_words) of which word i
// of a row counts 2 ** (i % digits).
extern "C" __global__ void count_columns(const word *words, i64 rows, i64 n, i64 n_words, i64 digits, i64 total,
                                         word *planes) {
  for (i64 i = thread_number(); i < rows * n_words; i += thread_count()) {
    i64 row = i / n_words, w = i - row * n_words;
    word count[MOST_DIGITS] = {};
    for (i64 digit = 0; digit < digits; digit++)
      for (i64 j = digit; j < n; j += digits) {
        word carry = words[(row * n + j) * n_words + w];
#pragma unroll
        for (int k = 0; k < MOST_DIGITS; k++) {
          if (!carry) break;
          if (k < digit) continue;
          word both = count[k] & carry;
          count[k] ^= carry;
          carry = both;
        }
      }
#pragma unroll
    for (int k = 0; k < MOST_DIGITS; k++)
      if (k < total) planes[(row * total + k) * n_words + w] = count[k];
  }
}

// Accumulators of rows of such counts. A step adds worth * count - offset, writes a one and subtracts `scale` if there is
// that much, and clips to low ... high.
extern "C" __global__ void accumulate(const word *planes, i64 rows, i64 total, i64 length, int scale, int offset, int low,
                                      int high, int worth, word *out, int *states) {
  i64 n_words = (length + WORD - 1) / WORD;
  for (i64 row = thread_number(); row < rows; row += thread_count()) {
    int state = states[row];
    for (i64 w = 0; w < n_words; w++) {
      word digit[MOST_DIGITS], result = 0;
#pragma unroll
      for (int k = 0; k < MOST_DIGITS; k++) digit[k] = k < total ? planes[(row * total + k) * n_words + w] : 0;
      int bits = length - w * WORD < WORD ? (int)(length - w * WORD) : WORD;
      for (int t = 0; t < bits; t++) {
        int count = 0;
#pragma unroll
        for (int k = 0; k < MOST_DIGITS; k++) {
          if (k >= total) break;
          count |= (int)(digit[k] >> t & 1) << k;
        }
        state += worth * count - offset;
        if (state >= scale) {
          state -= scale;
          result |= 1ull << t;
        }
        state = state < low ? low : state > high ? high : state;
      }
      out[row * n_words + w] = result;
    }
    states[row] = state;
  }
}

// Multiply-accumulate: counts[i, j] of a (rows_a, width) and b (rows_b, width), that is the ones of a AND b, or of
// a XOR b. The width is cut into `parts` of part_words; with several of them the counts must be 0 before the launch. No
// part is longer than 2^24 words, so that 32 bits hold its counts.

__device__ const int B_ROWS = 4;  // rows of b in a tile

__device__ inline void add_count(word *counts, i64 parts, word count) {
  if (parts == 1)
    *counts = count;
  else
    atomicAdd(counts, count);
}

template <int VECTOR>
__device__ inline void load_words(word (&out)[VECTOR], const word *from) {
  if (VECTOR == 2) {
    ulonglong2 pair = *(const ulonglong2 *)from;
    out[0] = pair.x;
    out[VECTOR - 1] = pair.y;
  } else {
    out[0] = *from;
  }
}

// A block has a tile of A_ROWS x 4 counts in registers, and its threads go along the width, VECTOR words at a time.
template <int A_ROWS, int VECTOR>
__device__ void mac_tile(const word *a, i64 rows_a, const word *b, i64 rows_b, i64 width, i64 parts,
                         i64 part_words, int is_xor, word *counts) {
  const int THREADS = 128, CELLS = A_ROWS * B_ROWS;
  __shared__ unsigned sums[THREADS / 32][CELLS];
  i64 tiles_a = (rows_a + A_ROWS - 1) / A_ROWS, tiles_b = (rows_b + B_ROWS - 1) / B_ROWS;
  word flip = is_xor ? ~0ull : 0;
  for (i64 tile = blockIdx.x; tile < tiles_a * tiles_b * parts; tile += gridDim.x) {
    i64 i0 = tile % tiles_a * A_ROWS, j0 = tile / tiles_a % tiles_b * B_ROWS, part = tile / tiles_a / tiles_b;
    i64 start = part * part_words;
    i64 stop = start + part_words < width ? start + part_words : width;
    const word *a_row[A_ROWS], *b_row[B_ROWS];
    for (int i = 0; i < A_ROWS; i++) a_row[i] = a + (i0 + i < rows_a ? i0 + i : rows_a - 1) * width;
    for (int j = 0; j < B_ROWS; j++) b_row[j] = b + (j0 + j < rows_b ? j0 + j : rows_b - 1) * width;
    unsigned ones[A_ROWS][B_ROWS] = {};
#pragma unroll 2
    for (i64 k = start + (i64)threadIdx.x * VECTOR; k < stop; k += THREADS * VECTOR) {
      word x[A_ROWS][VECTOR], w[B_ROWS][VECTOR];
      for (int j = 0; j < B_ROWS; j++) load_words(w[j], b_row[j] + k);
      for (int i = 0; i < A_ROWS; i++) load_words(x[i], a_row[i] + k);
      for (int i = 0; i < A_ROWS; i++)
        for (int j = 0; j < B_ROWS; j++)
          for (int v = 0; v < VECTOR; v++)
            ones[i][j] += __popcll((x[i][v] & w[j][v] & ~flip) | ((x[i][v] ^ w[j][v]) & flip));
    }
    for (int i = 0; i < A_ROWS; i++)
      for (int j = 0; j < B_ROWS; j++) {
        unsigned sum = ones[i][j];
        for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
        if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][i * B_ROWS + j] = sum;
      }
    __syncthreads();
    if (threadIdx.x < CELLS) {
      i64 i = i0 + threadIdx.x / B_ROWS, j = j0 + threadIdx.x % B_ROWS;
      word sum = 0;
      for (int warp = 0; warp < THREADS / 32; warp++) sum += sums[warp][threadIdx.x];
      if (i < rows_a && j < rows_b) add_count(counts + i * rows_b + j, parts, sum);
    }
    __syncthreads();
  }
}

#define MAC_TILE(A_ROWS, VECTOR)                                                                                    \
  extern "C" __global__ void __launch_bounds__(128) mac_tile_##A_ROWS##_##VECTOR(                                   \
      const word *a, i64 rows_a, const word *b, i64 rows_b, i64 width, i64 parts, i64 part_words,         \
      int is_xor, word *counts) {                                                                                   \
    mac_tile<A_ROWS, VECTOR>(a, rows_a, b, rows_b, width, parts, part_words, is_xor, counts);                       \
  }

MAC_TILE(1, 1)
MAC_TILE(1, 2)
MAC_TILE(4, 1)
MAC_TILE(4, 2)

// Older GPUs have no such tensor cores, nor copies in the background.
#if !defined(__CUDACC__) || __CUDA_ARCH__ >= 800

// On the tensor cores a block of 8 warps makes 128 x 128 counts, of which each warp makes 64 x 32. Both operands go through
// shared memory, 64 bytes of a row at a time, in three stages: one is multiplied while two are on their way. The four
// pieces of 16 bytes of a row are stored in an order that depends on the row, so that the eight rows that
// `load_matrices` reads together lie in different banks.

__device__ const int TILE = 128, STAGES = 3, STEP = 8;  // rows of a tile, stages, words of a row in a stage
__device__ const int ROW_BYTES = 8 * STEP;

__device__ inline int offset_of(int row, int piece) { return row * ROW_BYTES + ((piece ^ row >> 1) & 3) * 16; }

template <int COPY>
__device__ inline void copy_tile(unsigned char *shared, const word *from, i64 row0, i64 rows, i64 width, i64 k,
                                 i64 stop) {
  const int COPIES = ROW_BYTES / COPY;  // copies for a row
  for (int c = threadIdx.x; c < TILE * COPIES; c += 256) {
    int row = c / COPIES, byte = c % COPIES * COPY;
    i64 at = k + byte / 8, left = 8 * (stop - at);
    int valid = row0 + row >= rows || left <= 0 ? 0 : left < COPY ? (int)left : COPY;
    const word *source = valid ? from + (row0 + row) * width + at : from;
    copy_async<COPY>(shared + offset_of(row, byte / 16) + byte % 16, source, valid);
  }
}

template <int COPY>
__device__ void mac_tensor(const word *a, i64 rows_a, const word *b, i64 rows_b, i64 width, i64 parts,
                           i64 part_words, const word *ones_a, const word *ones_b, word *counts) {
  __shared__ __align__(128) unsigned char shared[STAGES][2][TILE * ROW_BYTES];
  i64 tiles_a = (rows_a + TILE - 1) / TILE, tiles_b = (rows_b + TILE - 1) / TILE;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int warp_a = warp / 4 * 64, warp_b = warp % 4 * 32;
  for (i64 tile = blockIdx.x; tile < tiles_a * tiles_b * parts; tile += gridDim.x) {
    i64 i0 = tile % tiles_a * TILE, j0 = tile / tiles_a % tiles_b * TILE, part = tile / tiles_a / tiles_b;
    i64 start = part * part_words;
    i64 stop = start + part_words < width ? start + part_words : width;
    i64 steps = (stop - start + STEP - 1) / STEP;
    int ones[4][4][4] = {};

    auto fetch = [&](i64 step) {
      if (step < steps) {
        unsigned char(*to)[TILE * ROW_BYTES] = shared[step % STAGES];
        copy_tile<COPY>(to[0], a, i0, rows_a, width, start + step * STEP, stop);
        copy_tile<COPY>(to[1], b, j0, rows_b, width, start + step * STEP, stop);
      }
      end_of_copies();
    };

    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (i64 step = 0; step < steps; step++) {
      wait_for_copies<STAGES - 2>();
      __syncthreads();
      fetch(step + STAGES - 1);
      const unsigned char *from_a = shared[step % STAGES][0], *from_b = shared[step % STAGES][1];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        unsigned x[4][4], w[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
          load_matrices(x[i], from_a + offset_of(warp_a + 16 * i + lane % 16, 2 * half + lane / 16));
#pragma unroll
        for (int j = 0; j < 2; j++)
          load_matrices(w[j], from_b + offset_of(warp_b + 16 * j + lane % 8 + lane / 16 * 8, 2 * half + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++)
            tensor_and_popcount(ones[i][j], x[i], w[j / 2][j % 2 * 2], w[j / 2][j % 2 * 2 + 1]);
      }
    }
    wait_for_copies<0>();
    __syncthreads();  // The next tile is fetched only when all warps are done with this one.

#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
          i64 row = i0 + warp_a + 16 * i + lane / 4 + c / 2 * 8;
          i64 column = j0 + warp_b + 8 * j + lane % 4 * 2 + c % 2;
          if (row >= rows_a || column >= rows_b) continue;
          word count = ones[i][j][c];
          if (ones_a)  // a XOR b has the ones of both, less twice those that they share.
            count = (part == 0 ? ones_a[row] + ones_b[column] : 0) - 2 * count;
          add_count(counts + row * rows_b + column, parts, count);
        }
  }
}

#define MAC_TENSOR(COPY)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256, 2) mac_tensor_##COPY(                                           \
      const word *a, i64 rows_a, const word *b, i64 rows_b, i64 width, i64 parts, i64 part_words,         \
      const word *ones_a, const word *ones_b, word *counts) {                                                       \
    mac_tensor<COPY>(a, rows_a, b, rows_b, width, parts, part_words, ones_a, ones_b, counts);                       \
  }

MAC_TENSOR(8)
MAC_TENSOR(16)

#endif
