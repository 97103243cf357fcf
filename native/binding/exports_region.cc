#include <atomic>

#include "binding/arguments.h"
#include "binding/exports.h"
#include "binding/session.h"
#include "binding/shared_buffer.h"

namespace pagemesh {
namespace {

// Operations on a word at its home; lib/protocol/messages.ts has the same numbers.
enum AtomicOperation : uint32_t { kLoad = 0, kStore = 1, kFetchAdd = 2, kCompareExchange = 3 };

template <typename Word>
Word PerformAtomic(void* at, uint32_t operation, Word operand, Word expected) {
  auto* word = static_cast<std::atomic<Word>*>(at);
  switch (operation) {
    case kStore:
      return word->exchange(operand);
    case kFetchAdd:
      return word->fetch_add(operand);
    case kCompareExchange:
      word->compare_exchange_strong(expected, operand);
      return expected;  // what was there
    default:
      return word->load();
  }
}

// nullptr if there is no such word.
void* PagedWord(const Region* region, uint32_t page, uint32_t byte, uint32_t word_bytes) {
  const bool known = word_bytes == 4 || word_bytes == 8;
  if (!known || page >= region->page_count() || byte % word_bytes != 0 ||
      byte > region->page_bytes() - word_bytes) {
    return nullptr;
  }
  return region->frame(page) + byte;
}

}  // namespace

// mapRegion(session, id, pageBytes, pageCount, base, placement, fixedHome, prefetch)
Napi::Value MapRegion(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  RegionOptions options;
  options.id = Uint32Argument(info, 1);
  options.page_bytes = Uint32Argument(info, 2);
  options.page_count = Uint32Argument(info, 3);
  options.base = Uint64Argument(info, 4);
  options.placement = static_cast<Placement>(Uint32Argument(info, 5));
  options.fixed_home = Uint32Argument(info, 6);
  options.prefetch = info[7].ToBoolean();
  return Napi::Number::New(info.Env(), session->MapRegion(options));
}

// mapWords(session, id, pageBytes, pageCount, share): where they can be changed by RDMA atomics,
// or undefined if they cannot be.
Napi::Value MapWords(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  WordsKey key;
  bool shared = false;
  const int failed = session->MapWords(Uint32Argument(info, 1), Uint32Argument(info, 2),
                                       Uint32Argument(info, 3), info[4].ToBoolean(), &key, &shared);
  if (failed != 0) return ThrowErrno(info.Env(), "mapWords", failed);
  if (!shared) return info.Env().Undefined();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("rkey", Napi::Number::New(info.Env(), key.rkey));
  result.Set("address", Napi::BigInt::New(info.Env(), key.address));
  return result;
}

Napi::Value UnmapRegion(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session != nullptr) session->UnmapRegion(Uint32Argument(info, 1));
  return info.Env().Undefined();
}

Napi::Value RegionBuffer(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  Region* region = session == nullptr ? nullptr : RegionArgument(info, session);
  if (region == nullptr) return info.Env().Undefined();
  const double asked = info[3].IsNumber() ? info[3].As<Napi::Number>().DoubleValue() : 0;
  const size_t bytes = asked > 0 ? static_cast<size_t>(asked) : region->byte_length();
  if (bytes > region->byte_length()) return ThrowErrno(info.Env(), "regionBuffer", EINVAL);
  const auto part = static_cast<RegionPart>(Uint32Argument(info, 2));
  return MakeSharedBuffer(info.Env(), region, part, bytes);
}

// regionStats(session, id, into: Float64Array): in the order of RegionStats.
Napi::Value RegionStatsOf(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  Region* region = session == nullptr ? nullptr : RegionArgument(info, session);
  if (region == nullptr) return info.Env().Undefined();
  const RegionStats& stats = region->stats();
  const std::atomic<uint64_t>* const counters[kRegionStatCount] = {
      &stats.read_faults,      &stats.write_faults,      &stats.local_faults, &stats.pages_received,
      &stats.pages_sent,       &stats.bytes_received,    &stats.bytes_sent,   &stats.invalidations,
      &stats.pages_parked,     &stats.wait_ns,           &stats.direct_reads, &stats.direct_writes,
      &stats.pages_prefetched, &stats.prefetches_useless};
  const bool fits = info[2].IsTypedArray() &&
                    info[2].As<Napi::TypedArray>().TypedArrayType() == napi_float64_array;
  if (!fits) return ThrowErrno(info.Env(), "regionStats", EINVAL);
  auto into = info[2].As<Napi::Float64Array>();
  for (size_t i = 0; i < kRegionStatCount && i < into.ElementLength(); i++) {
    into[i] = static_cast<double>(counters[i]->load(std::memory_order_relaxed));
  }
  return info.Env().Undefined();
}

Napi::Value HomeOf(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  Region* region = session == nullptr ? nullptr : RegionArgument(info, session);
  if (region == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), region->HomeOf(Uint32Argument(info, 2)));
}

// atomic(session, region, page, byteInPage, bits, operation, operand, expected): the word as it
// was. The caller holds the page: nobody else has a copy, or for a load nobody may write. In a
// region of atomic words, `page` is the page's index at this home.
Napi::Value Atomic(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const WordBlock* block = session->FindWords(Uint32Argument(info, 1));
  Region* region = block != nullptr ? nullptr : RegionArgument(info, session);
  if (block == nullptr && region == nullptr) return info.Env().Undefined();
  if (block != nullptr && block->by_rdma()) return ThrowErrno(info.Env(), "atomic", EBUSY);
  const uint32_t page = Uint32Argument(info, 2);
  const uint32_t byte = Uint32Argument(info, 3);
  const uint32_t word_bytes = Uint32Argument(info, 4) / 8;
  void* at = block != nullptr ? (word_bytes == 8 ? block->WordAt(page, byte) : nullptr)
                              : PagedWord(region, page, byte, word_bytes);
  if (at == nullptr) return ThrowErrno(info.Env(), "atomic", EINVAL);
  const uint32_t operation = Uint32Argument(info, 5);
  const uint64_t operand = Uint64Argument(info, 6), expected = Uint64Argument(info, 7);
  const uint64_t before =
      word_bytes == 8 ? PerformAtomic<uint64_t>(at, operation, operand, expected)
                      : PerformAtomic<uint32_t>(at, operation, static_cast<uint32_t>(operand),
                                                static_cast<uint32_t>(expected));
  return Napi::BigInt::New(info.Env(), before);
}

Napi::Value CountWaitersOf(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  Region* region = session == nullptr ? nullptr : RegionArgument(info, session);
  if (region == nullptr) return info.Env().Undefined();
  const int count = CountWaiters(region, Uint32Argument(info, 2), Uint32Argument(info, 3));
  return Napi::Number::New(info.Env(), count);
}

}  // namespace pagemesh
