#include "binding/arguments.h"

#include <string.h>

namespace pagemesh {

Napi::Value ThrowErrno(Napi::Env env, const char* what, int error) {
  Napi::Error thrown = Napi::Error::New(env, std::string(what) + ": " + strerror(error));
  thrown.Set("errno", Napi::Number::New(env, error));
  thrown.Set("syscall", Napi::String::New(env, what));
  thrown.ThrowAsJavaScriptException();
  return env.Undefined();
}

Session* SessionArgument(const Napi::CallbackInfo& info) {
  Session* session = Session::Get(Uint32Argument(info, 0));
  if (session == nullptr) {
    Napi::Error::New(info.Env(), "no such session").ThrowAsJavaScriptException();
  }
  return session;
}

Region* RegionArgument(const Napi::CallbackInfo& info, Session* session) {
  Region* region = session->FindRegionById(Uint32Argument(info, 1));
  if (region == nullptr) {
    Napi::Error::New(info.Env(), "no such region").ThrowAsJavaScriptException();
  }
  return region;
}

uint32_t Uint32Argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].IsNumber() ? info[index].As<Napi::Number>().Uint32Value() : 0;
}

int32_t Int32Argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].IsNumber() ? info[index].As<Napi::Number>().Int32Value() : 0;
}

uint64_t Uint64Argument(const Napi::CallbackInfo& info, size_t index) {
  bool lossless = false;
  return info[index].IsBigInt() ? info[index].As<Napi::BigInt>().Uint64Value(&lossless) : 0;
}

}  // namespace pagemesh
