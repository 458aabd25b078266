// The CUDA built-ins that kernels.cu uses, for a C++ compiler: the threads of a block are coroutines of one host
// thread, which take turns at barriers; blocks run one after the other.

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct Dim {
  unsigned x;
};
struct ulonglong2 {
  unsigned long long x, y;
};

static thread_local Dim gridDim, blockDim, blockIdx, threadIdx;

// Threads

struct Barrier {
  unsigned arrived = 0, round = 0;
};

struct Copy {
  char *target;
  const char *source;
  int bytes, valid;
};

struct Thread {
  std::deque<std::vector<Copy>> copies{1};
  ucontext_t start;
  jmp_buf place;
  bool started = false, done = false;
};

struct Block {
  jmp_buf scheduler;
  std::vector<Thread> threads;
  Barrier whole;
  std::vector<Barrier> warps;
  std::vector<unsigned long long> exchange;  // 8 numbers a thread
};

static thread_local Block block;
static thread_local void (*kernel_body)(void **);
static thread_local void **kernel_args;
static thread_local bool misaligned;

// Jumps, which switch stacks in a tenth of the time of swapcontext.
static void give_way() {
  if (!_setjmp(block.threads[threadIdx.x].place)) _longjmp(block.scheduler, 1);
}

static __attribute__((noinline)) void resume(unsigned number) {
  threadIdx.x = number;
  Thread &thread = block.threads[number];
  if (_setjmp(block.scheduler)) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.start);
}

static void wait_at(Barrier &barrier, unsigned threads) {
  unsigned round = barrier.round;
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    barrier.round++;
  }
  while (barrier.round == round) give_way();
}

static void __syncthreads() { wait_at(block.whole, blockDim.x); }
static void sync_warp() { wait_at(block.warps[threadIdx.x / 32], 32); }

static void run_thread() {
  kernel_body(kernel_args);
  block.threads[threadIdx.x].done = true;
  give_way();
}

// Run a block to its end; false if threads wait for ones that are gone.
static bool run_block(std::vector<std::unique_ptr<char[]>> &stacks, size_t stack_bytes) {
  unsigned left = blockDim.x;
  block.threads = std::vector<Thread>(left);
  block.whole = {};
  block.warps.assign((left + 31) / 32, {});
  block.exchange.assign(8 * left, 0);
  for (unsigned t = 0; t < blockDim.x; t++) {
    ucontext_t &start = block.threads[t].start;
    getcontext(&start);
    start.uc_stack.ss_sp = stacks[t].get();
    start.uc_stack.ss_size = stack_bytes;
    makecontext(&start, run_thread, 0);
  }
  for (unsigned idle = 0; left && idle < 4; idle++) {
    for (unsigned t = 0; t < blockDim.x; t++) {
      bool &done = block.threads[t].done;
      if (done) continue;
      unsigned rounds = block.whole.round + block.warps[t / 32].round;
      resume(t);
      if (done) left--;
      if (done || rounds != block.whole.round + block.warps[t / 32].round) idle = 0;
    }
  }
  return left == 0;
}

// What threads of a warp tell each other

template <typename T>
static T __shfl_xor_sync(unsigned, T value, int apart) {
  block.exchange[8 * threadIdx.x] = value;
  sync_warp();
  T other = (T)block.exchange[8 * (threadIdx.x ^ apart)];
  sync_warp();
  return other;
}

static unsigned warp_start() { return threadIdx.x / 32 * 32; }

static void load_matrices(unsigned (&out)[4], const void *row) {
  block.exchange[8 * threadIdx.x] = (unsigned long long)row;
  sync_warp();
  unsigned lane = threadIdx.x % 32;
  for (int m = 0; m < 4; m++) {
    const char *address = (const char *)block.exchange[8 * (warp_start() + 8 * m + lane / 4)];
    misaligned |= (unsigned long long)address % 16 != 0;
    std::memcpy(&out[m], address + lane % 4 * 4, 4);
  }
  sync_warp();
}

// The fragments of mma.m16n8k256, by the PTX manual: register r of lane l has of A row l / 4 + r % 2 * 8 and of B
// column l / 4, the 32 bits from 32 * (l % 4) + r / 2 * 128 (A) or + r * 128 (B) on.
static void tensor_and_popcount(int (&counts)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  unsigned lane = threadIdx.x % 32, mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  for (int r = 0; r < 6; r++) block.exchange[8 * threadIdx.x + r] = mine[r];
  sync_warp();
  for (int c = 0; c < 4; c++) {
    unsigned row = lane / 4, column = lane % 4 * 2 + c % 2;
    for (unsigned quarter = 0; quarter < 4; quarter++)
      for (unsigned half = 0; half < 2; half++) {
        unsigned from_a = 8 * (warp_start() + 4 * row + quarter) + c / 2 + 2 * half;
        unsigned from_b = 8 * (warp_start() + 4 * column + quarter) + 4 + half;
        counts[c] += __builtin_popcount((unsigned)(block.exchange[from_a] & block.exchange[from_b]));
      }
  }
  sync_warp();
}

// What each thread does alone

static int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
static int __ffsll(long long value) { return __builtin_ffsll(value); }

static unsigned long long atomicAdd(unsigned long long *address, unsigned long long value) {
  unsigned long long old = *address;
  *address += value;
  return old;
}

// A copy is done as late as it may be, and until then its target holds nothing of use.
template <int BYTES>
static void copy_async(void *shared, const void *global, int valid) {
  misaligned |= (unsigned long long)shared % BYTES || (unsigned long long)global % BYTES;
  std::memset(shared, 0xa5, BYTES);
  block.threads[threadIdx.x].copies.back().push_back({(char *)shared, (const char *)global, BYTES, valid});
}

static void end_of_copies() { block.threads[threadIdx.x].copies.emplace_back(); }

template <int PENDING>
static void wait_for_copies() {
  auto &groups = block.threads[threadIdx.x].copies;  // the last one has not ended
  for (; groups.size() > PENDING + 1; groups.pop_front())
    for (const Copy &copy : groups.front()) {
      std::memset(copy.target, 0, copy.bytes);
      std::memcpy(copy.target, copy.source, copy.valid);
    }
}

#include KERNELS

// Launching

template <auto KERNEL>
struct Launcher;

template <typename... Args, void (*KERNEL)(Args...)>
struct Launcher<KERNEL> {
  template <size_t... I>
  static void unpacked(void **args, std::index_sequence<I...>) {
    KERNEL(*(Args *)args[I]...);
  }
  static void run(void **args) { unpacked(args, std::index_sequence_for<Args...>()); }
};

// 0, or 1 for an unknown kernel, 2 for threads that wait forever, 3 for an address that is not aligned as it must be.
extern "C" int launch(const char *name, unsigned grid, unsigned threads, void **args) {
  const std::pair<const char *, void (*)(void **)> kernels[] = {
#define KERNEL(name) {#name, Launcher<name>::run},
      ALL_KERNELS
#undef KERNEL
  };
  const size_t stack_bytes = 1 << 16;
  kernel_body = nullptr;
  for (auto &kernel : kernels)
    if (!std::strcmp(kernel.first, name)) kernel_body = kernel.second;
  if (!kernel_body) return 1;
  kernel_args = args;
  misaligned = false;
  std::vector<std::unique_ptr<char[]>> stacks(threads);
  for (auto &stack : stacks) stack.reset(new char[stack_bytes]);
  gridDim.x = grid;
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
    if (!run_block(stacks, stack_bytes)) return 2;
  return misaligned ? 3 : 0;
}
