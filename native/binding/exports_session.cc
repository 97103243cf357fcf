#include <unistd.h>

#include <string>

#include "binding/arguments.h"
#include "binding/exports.h"
#include "binding/session.h"

namespace pagemesh {
namespace {

enum CallWord {
  kCallActionCount,
  kCallTimeoutMs,
  kCallWatchResumes,
  kCallNowMsLow,  // 31 bits, so that it is never negative
  kCallNowMsHigh,
  kCallWords
};

}  // namespace

Napi::Value SessionCreate(const Napi::CallbackInfo& info) {
  SessionOptions options;
  options.rank = Int32Argument(info, 0);
  options.size = Int32Argument(info, 1);
  options.map_limit = Uint32Argument(info, 2);
  options.lifeline_fd = Int32Argument(info, 3);
  options.userfaultfd = info[4].ToBoolean();
  if (options.size < 1 || options.size > static_cast<int>(kMaxMembers) || options.rank < 0 ||
      options.rank >= options.size) {
    return ThrowErrno(info.Env(), "sessionCreate", EINVAL);
  }
  Session* session = Session::Create(options);
  if (session == nullptr) return ThrowErrno(info.Env(), "sessionCreate", errno);
  return Napi::Number::New(info.Env(), session->id());
}

Napi::Value SessionDestroy(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session != nullptr) session->Destroy();
  return info.Env().Undefined();
}

Napi::Value Stop(const Napi::CallbackInfo& info) {
  Session* session = Session::Get(Uint32Argument(info, 0));
  const bool exiting = info[1].IsNumber();
  if (session != nullptr) session->Stop(exiting, Int32Argument(info, 1));
  return info.Env().Undefined();
}

Napi::Value Wake(const Napi::CallbackInfo& info) {
  Session* session = Session::Get(Uint32Argument(info, 0));
  const bool program = info[1].IsBoolean() && info[1].As<Napi::Boolean>().Value();
  if (session != nullptr && program) session->WakeProgram();
  if (session != nullptr && !program) session->Wake();
  return info.Env().Undefined();
}

Napi::Value AwaitToken(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const Session::TokenAsk ask = {Uint32Argument(info, 1), Uint32Argument(info, 2),
                                 Uint32Argument(info, 3)};
  return Napi::Number::New(info.Env(), session->AwaitToken(ask));
}

Napi::Value PassToken(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const Session::TokenAsk ask = {Uint32Argument(info, 2), Uint32Argument(info, 3),
                                 Uint32Argument(info, 5)};
  const bool sent = session->PassToken(Int32Argument(info, 1), ask, Uint32Argument(info, 4));
  return Napi::Boolean::New(info.Env(), sent);
}

Napi::Value SetView(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session != nullptr) session->SetView(Uint32Argument(info, 1));
  return info.Env().Undefined();
}

// exchange(session, call, actions, blobsOut, events, blobsIn). Six arguments, as more would be put
// into memory that is allocated for each call; lib/native/addon.ts names the words of `call`.
Napi::Value Exchange(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  if (!info[1].IsTypedArray() || !info[2].IsTypedArray() || !info[3].IsTypedArray() ||
      !info[4].IsTypedArray() || !info[5].IsTypedArray()) {
    return ThrowErrno(info.Env(), "exchange", EINVAL);
  }
  auto call = info[1].As<Napi::Int32Array>();
  if (call.ByteLength() < kCallWords * sizeof(int32_t)) {
    return ThrowErrno(info.Env(), "exchange", EINVAL);
  }
  const auto actions = info[2].As<Napi::Uint32Array>();
  const uint32_t action_count = static_cast<uint32_t>(call.Data()[kCallActionCount]);
  const auto blobs_out = info[3].As<Napi::Uint8Array>();
  auto events = info[4].As<Napi::Uint32Array>();
  auto blobs_in = info[5].As<Napi::Uint8Array>();
  if (action_count > actions.ByteLength() / sizeof(Entry)) {
    return ThrowErrno(info.Env(), "exchange", EINVAL);
  }
  const int count = session->Exchange(
      reinterpret_cast<const Entry*>(actions.Data()), action_count, blobs_out.Data(),
      blobs_out.ByteLength(), reinterpret_cast<Entry*>(events.Data()),
      static_cast<uint32_t>(events.ByteLength() / sizeof(Entry)), blobs_in.Data(),
      blobs_in.ByteLength(), call.Data()[kCallTimeoutMs], call.Data()[kCallWatchResumes] != 0);
  const uint64_t age_ms = session->AgeMs();
  call.Data()[kCallNowMsLow] = static_cast<int32_t>(age_ms & INT32_MAX);
  call.Data()[kCallNowMsHigh] = static_cast<int32_t>(age_ms >> 31);
  return Napi::Number::New(info.Env(), count);
}

Napi::Value Listen(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  if (!info[1].IsString()) return ThrowErrno(info.Env(), "listen", EINVAL);
  const std::string host = info[1].As<Napi::String>().Utf8Value();
  const int port =
      session->transport()->Listen(host.c_str(), static_cast<uint16_t>(Uint32Argument(info, 2)));
  if (port < 0) return ThrowErrno(info.Env(), "listen", -port);
  return Napi::Number::New(info.Env(), port);
}

Napi::Value Connect(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  if (!info[1].IsString()) return ThrowErrno(info.Env(), "connect", EINVAL);
  const std::string host = info[1].As<Napi::String>().Utf8Value();
  const int connection =
      session->transport()->Connect(host.c_str(), static_cast<uint16_t>(Uint32Argument(info, 2)));
  if (connection < 0) return ThrowErrno(info.Env(), "connect", -connection);
  return Napi::Number::New(info.Env(), connection);
}

Napi::Value BindRank(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const bool bound = session->transport()->Bind(Int32Argument(info, 1), Int32Argument(info, 2));
  return Napi::Boolean::New(info.Env(), bound);
}

Napi::Value CloseConnection(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session != nullptr) session->transport()->Close(Int32Argument(info, 1));
  return info.Env().Undefined();
}

// openLinks(session, rank, device, port, gidIndex): opens an RDMA device, or without one the memory
// of this host. What was opened; throws with why not.
Napi::Value OpenLinks(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const int rank = Int32Argument(info, 1);
  std::string what;
  bool open;
  if (info.Length() == 2) {
    open = session->transport()->OpenShm(rank, &what);
  } else {
    const uint32_t port = Uint32Argument(info, 3), gid_index = Uint32Argument(info, 4);
    if (!info[2].IsString() || port > UINT8_MAX || gid_index > UINT8_MAX) {
      return ThrowErrno(info.Env(), "openLinks", EINVAL);
    }
    const RdmaAddress at = {info[2].As<Napi::String>().Utf8Value(), static_cast<uint8_t>(port),
                            static_cast<uint8_t>(gid_index)};
    open = session->transport()->OpenLinks(at, rank, &what);
  }
  if (open) return Napi::String::New(info.Env(), what);
  Napi::Error::New(info.Env(), what).ThrowAsJavaScriptException();
  return info.Env().Undefined();
}

// link(session, way, step, rank, offer?): 0 makes an offer, 1 takes the other side's, 2 probes the
// link, 3 uses it, 4 drops it.
Napi::Value Link(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const uint32_t way_number = Uint32Argument(info, 1), step = Uint32Argument(info, 2);
  const int rank = Int32Argument(info, 3);
  if (rank < 0 || rank >= static_cast<int>(kMaxMembers) || step > 4 || way_number > 1) {
    return ThrowErrno(info.Env(), "link", EINVAL);
  }
  const LinkWay way = static_cast<LinkWay>(way_number);
  std::vector<uint8_t> offer;
  if (step == 0) {
    if (!session->transport()->OfferLink(way, rank, &offer))
      return ThrowErrno(info.Env(), "link", errno);
    return Napi::Buffer<uint8_t>::Copy(info.Env(), offer.data(), offer.size());
  }
  if (step == 1) {
    const bool bytes = info[4].IsTypedArray() &&
                       info[4].As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
    if (!bytes) return ThrowErrno(info.Env(), "link", EINVAL);
    const auto given = info[4].As<Napi::Uint8Array>();
    offer.assign(given.Data(), given.Data() + given.ByteLength());
    if (!session->transport()->AcceptLink(way, rank, offer)) {
      return ThrowErrno(info.Env(), "link", errno);
    }
  } else if (step == 2) {
    if (!session->transport()->ProbeLink(way, rank)) return ThrowErrno(info.Env(), "link", errno);
  } else if (step == 3) {
    session->transport()->UseLink(way, rank);
  } else {
    session->transport()->DropLink(way, rank);
  }
  return info.Env().Undefined();
}

Napi::Value LinkRecords(const Napi::CallbackInfo& info) {
  Session* session = SessionArgument(info);
  if (session == nullptr) return info.Env().Undefined();
  const uint32_t way = Uint32Argument(info, 1);
  if (way > 1) return ThrowErrno(info.Env(), "linkRecords", EINVAL);
  const uint64_t records = session->transport()->LinkRecords(static_cast<LinkWay>(way));
  return Napi::Number::New(info.Env(), static_cast<double>(records));
}

Napi::Value Die(const Napi::CallbackInfo& info) {
  const std::string message =
      (info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "pagemesh: died") + "\n";
  const ssize_t ignored = write(STDERR_FILENO, message.data(), message.size());
  (void)ignored;
  _exit(Int32Argument(info, 1));
}

}  // namespace pagemesh
