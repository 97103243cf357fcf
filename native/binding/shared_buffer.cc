#include "binding/shared_buffer.h"

#include <dlfcn.h>

namespace pagemesh {
namespace {

using Finalizer = void (*)(void* data, void* hint);
using CreateExternalSharedArrayBuffer = napi_status (*)(napi_env, void*, size_t, Finalizer, void*,
                                                        napi_value*);

// Any thread: a SharedArrayBuffer may die in any worker.
void ReleaseRegion(void* /*data*/, void* region) { static_cast<Region*>(region)->Unref(); }

void ReleaseNothing(void* /*data*/, void* /*owner*/) {}

CreateExternalSharedArrayBuffer FindNodeApi() {
  return reinterpret_cast<CreateExternalSharedArrayBuffer>(
      dlsym(RTLD_DEFAULT, "node_api_create_external_sharedarraybuffer"));
}

// `release` is called with `owner`, if the buffer cannot be made too.
Napi::Value MakeBuffer(Napi::Env env, void* data, size_t length, Finalizer release, void* owner) {
  static const CreateExternalSharedArrayBuffer create = FindNodeApi();
  if (create != nullptr) {
    napi_value result;
    const napi_status status = create(env, data, length, release, owner, &result);
    if (status == napi_ok) return Napi::Value(env, result);
    release(data, owner);
    Napi::Error::New(env, "node_api_create_external_sharedarraybuffer failed")
        .ThrowAsJavaScriptException();
    return env.Undefined();
  }
  Napi::BigUint64Array parts = Napi::BigUint64Array::New(env, 4);
  parts[0] = reinterpret_cast<uintptr_t>(data);
  parts[1] = length;
  parts[2] = reinterpret_cast<uintptr_t>(release);
  parts[3] = reinterpret_cast<uintptr_t>(owner);
  return parts;
}

}  // namespace

Napi::Value MakeSharedBuffer(Napi::Env env, Region* region, RegionPart part,
                             size_t application_bytes) {
  void* data = part == RegionPart::kApplication ? reinterpret_cast<void*>(region->base())
               : part == RegionPart::kStates    ? static_cast<void*>(region->states())
                                                : static_cast<void*>(region->directory());
  const size_t length = part == RegionPart::kApplication ? application_bytes
                        : part == RegionPart::kStates    ? region->page_count()
                                                         : region->directory_bytes();
  region->Ref();
  return MakeBuffer(env, data, length, ReleaseRegion, region);
}

Napi::Value MakeLastingBuffer(Napi::Env env, void* data, size_t length) {
  return MakeBuffer(env, data, length, ReleaseNothing, nullptr);
}

}  // namespace pagemesh
