// One pass over memory for a WAME step on packed state.
//
// zeta holds in its sign bit the sign of the previous gradient, theta in its sign bit whether that gradient was
// not zero; both are never negative themselves. Every operation is rounded on its own (build with
// -ffp-contract=off), in the order of plain.py, so that both give the same bits.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <omp.h>

namespace {

enum Rate { MULTIPLY, DIVIDE, RATIO, CONSTANT };  // factor of lr: Z, 1/Z, zeta/Z, 1
enum Root { INSIDE, OUTSIDE, NONE };              // sqrt(theta + eps), sqrt(theta) + eps, theta + eps

struct Bf16 {
  uint16_t bits;
};

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(Bf16 x) { return __builtin_bit_cast(float, uint32_t(x.bits) << 16); }

inline void narrow(float x, float& out) { out = x; }
inline void narrow(double x, double& out) { out = x; }
inline void narrow(float x, Bf16& out) {  // to nearest, ties to even; acceleration factors are never NaN
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  out.bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline uint32_t bits(float x) { return __builtin_bit_cast(uint32_t, x); }
inline uint64_t bits(double x) { return __builtin_bit_cast(uint64_t, x); }
inline float value(uint32_t x) { return __builtin_bit_cast(float, x); }
inline double value(uint64_t x) { return __builtin_bit_cast(double, x); }

struct Hyper {
  double alpha, eta_plus, eta_minus, zeta_min, zeta_max, eps, theta_decay;
};

template <typename T, typename S, Rate rate, Root root, bool shipped>
void update(T* __restrict w, const T* __restrict g, S* __restrict zeta_, S* __restrict average_,
            T* __restrict theta_, ptrdiff_t n, double lr_, const Hyper& h) {
  using U = decltype(bits(T{}));
  constexpr U SIGN = U(1) << (8 * sizeof(U) - 1);
  const T lr = T(lr_), alpha = T(h.alpha), rest = T(1 - h.alpha), eps = T(h.eps);
  const T up = T(h.eta_plus), down = T(h.eta_minus), low = T(h.zeta_min), high = T(h.zeta_max);
  const T decay = T(h.theta_decay), gain = T(1 - h.theta_decay);
#pragma omp simd
  for (ptrdiff_t i = 0; i < n; ++i) {
    const T grad = g[i];
    const U packed_zeta = bits(widen(zeta_[i])), packed_theta = bits(theta_[i]);
    T zeta = value(packed_zeta & ~SIGN);
    const U both = packed_theta >> (8 * sizeof(U) - 1) & U(grad != T(0));
    const U same = (bits(grad) ^ packed_zeta) & SIGN;
    T grown = zeta * up, shrunk = zeta * down;
    if (!shipped) {
      grown = grown < high ? grown : high;
      shrunk = shrunk > low ? shrunk : low;
    }
    const T moved = same == 0 ? grown : shrunk;
    if (rate != CONSTANT) zeta = both != 0 ? moved : zeta;
    T used = zeta;
    if (shipped) {
      used = used < high ? used : high;
      used = used > low ? used : low;
    }
    const T average = widen(average_[i]) * alpha + used * rest;
    const T theta = value(packed_theta & ~SIGN) * decay + (grad * grad) * gain;
    const T scale = rate == MULTIPLY  ? lr * average
                    : rate == DIVIDE  ? lr / average
                    : rate == RATIO   ? lr * (used / average)
                                      : lr;
    const T below = root == INSIDE ? std::sqrt(theta + eps) : root == OUTSIDE ? std::sqrt(theta) + eps : theta + eps;
    const T memory = shipped ? w[i] : grad;  // the authors' code remembers the weight for the gradient
    w[i] = w[i] - scale * grad / below;
    narrow(value(bits(zeta) | (bits(memory) & SIGN)), zeta_[i]);
    narrow(average, average_[i]);
    theta_[i] = value(bits(theta) | U(memory != T(0)) << (8 * sizeof(U) - 1));
  }
}

template <typename T, typename S>
using Update = void (*)(T*, const T*, S*, S*, T*, ptrdiff_t, double, const Hyper&);

template <typename T, typename S>
Update<T, S> choose(int rate, int root, int shipped) {
  if (shipped) return root == INSIDE ? update<T, S, RATIO, INSIDE, true> : update<T, S, RATIO, OUTSIDE, true>;
  if (root == NONE) return update<T, S, MULTIPLY, NONE, false>;
  const bool inside = root == INSIDE;
  switch (rate) {
    case MULTIPLY: return inside ? update<T, S, MULTIPLY, INSIDE, false> : update<T, S, MULTIPLY, OUTSIDE, false>;
    case DIVIDE: return inside ? update<T, S, DIVIDE, INSIDE, false> : update<T, S, DIVIDE, OUTSIDE, false>;
    case RATIO: return inside ? update<T, S, RATIO, INSIDE, false> : update<T, S, RATIO, OUTSIDE, false>;
    default: return inside ? update<T, S, CONSTANT, INSIDE, false> : update<T, S, CONSTANT, OUTSIDE, false>;
  }
}

// All tensors in one parallel region: each thread takes an equal share of the elements, in whole cache lines.
template <typename T, typename S>
void step(int64_t count, void* const* pointers, const int64_t* sizes, double lr, const Hyper& h, int rate, int root,
          int shipped, int threads) {
  const Update<T, S> kernel = choose<T, S>(rate, root, shipped);
  int64_t total = 0;
  for (int64_t k = 0; k < count; ++k) total += sizes[k];
  constexpr int64_t line = 64;
  const int64_t fewest = 4096;
  if (threads > total / fewest + 1) threads = int(total / fewest + 1);
  const int64_t share = (total / threads + line) / line * line;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) {
    int64_t first = thread * share, start = 0;
    const int64_t last = first + share < total ? first + share : total;
    for (int64_t k = 0; k < count && first < last; start += sizes[k++]) {
      const int64_t from = first - start, end = start + sizes[k];
      if (first >= end) continue;
      const int64_t n = (last < end ? last : end) - first;
      void* const* p = pointers + 5 * k;
      kernel((T*)p[0] + from, (const T*)p[1] + from, (S*)p[2] + from, (S*)p[3] + from, (T*)p[4] + from, n, lr, h);
      first += n;
    }
  }
}

}  // namespace

// pointers: w, gradient, zeta, Z, theta of each tensor. dtype: 0 float32, 1 float64, 2 float32 with zeta and Z
// in bfloat16.
extern "C" void wame_step(int dtype, int64_t count, void* const* pointers, const int64_t* sizes, double lr,
                          const double* hyper, int rate, int root, int shipped, int threads) {
  const Hyper h = {hyper[0], hyper[1], hyper[2], hyper[3], hyper[4], hyper[5], hyper[6]};
  if (dtype == 0) step<float, float>(count, pointers, sizes, lr, h, rate, root, shipped, threads);
  if (dtype == 1) step<double, double>(count, pointers, sizes, lr, h, rate, root, shipped, threads);
  if (dtype == 2) step<float, Bf16>(count, pointers, sizes, lr, h, rate, root, shipped, threads);
}
