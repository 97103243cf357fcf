#include <errno.h>

#include "binding/arguments.h"
#include "binding/barrier_words.h"
#include "binding/exports.h"
#include "binding/session.h"
#include "binding/shared_buffer.h"

namespace pagemesh {
namespace {

constexpr uint32_t kMostWaitUs = 100 * 1000;  // a thread that is to end must come back

// The session, if argument 1 is a slot; throws and returns nullptr if not.
Session* SessionAndSlot(const Napi::CallbackInfo& info, const char* what) {
  Session* session = SessionArgument(info);
  if (session == nullptr || Uint32Argument(info, 1) < kBarrierSlots) return session;
  ThrowErrno(info.Env(), what, EINVAL);
  return nullptr;
}

}  // namespace

// barrierWords(session): the words of all barriers; of one session after the other.
Napi::Value BarrierWordsBuffer(const Napi::CallbackInfo& info) {
  if (SessionArgument(info) == nullptr) return info.Env().Undefined();
  return MakeLastingBuffer(info.Env(), BarrierWords::words(), BarrierWords::kBytes);
}

// tellArrival(session, slot): a bit for each rank that could not be told.
Napi::Value TellArrivalAt(const Napi::CallbackInfo& info) {
  Session* session = SessionAndSlot(info, "tellArrival");
  if (session == nullptr) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), session->TellArrival(Uint32Argument(info, 1)));
}

// waitAtBarrier(session, slot, ticket, mostUs): whether all have come.
Napi::Value WaitAtBarrier(const Napi::CallbackInfo& info) {
  Session* session = SessionAndSlot(info, "waitAtBarrier");
  if (session == nullptr) return info.Env().Undefined();
  const uint32_t ticket = Uint32Argument(info, 2), most_us = Uint32Argument(info, 3);
  if (most_us > kMostWaitUs) return ThrowErrno(info.Env(), "waitAtBarrier", EINVAL);
  const bool open = session->WaitAtBarrier(Uint32Argument(info, 1), ticket, 1000 * most_us);
  return Napi::Boolean::New(info.Env(), open);
}

// ringProgram(session): a thread in waitAtBarrier looks again.
Napi::Value RingProgram(const Napi::CallbackInfo& info) {
  if (SessionArgument(info) != nullptr) BarrierWords::RingProgram();
  return info.Env().Undefined();
}

}  // namespace pagemesh
