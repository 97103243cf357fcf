#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/unique_fd.h"
#include "binding/exports.h"
#include "binding/session.h"

namespace pagemesh {
namespace {

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

bool CanOpenUserfaultfd(int flags) {
  const UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | flags)));
  return fd.valid();
}

}  // namespace

// probe(): what this machine lets this process do.
Napi::Value Probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("pageBytes", Napi::Number::New(env, static_cast<double>(sysconf(_SC_PAGESIZE))));
  result.Set("userfaultfd", Napi::Boolean::New(env, CanOpenUserfaultfd(0)));
  result.Set("userfaultfdUserMode",
             Napi::Boolean::New(env, CanOpenUserfaultfd(UFFD_USER_MODE_ONLY)));
  void* create = dlsym(RTLD_DEFAULT, "node_api_create_external_sharedarraybuffer");
  result.Set("nodeApiSharedBuffers", Napi::Boolean::New(env, create != nullptr));
  result.Set("mapBoundaryLimit", Napi::Number::New(env, ProtectionBudget::limit()));
  result.Set("mapBoundaries", Napi::Number::New(env, ProtectionBudget::boundaries()));
  return result;
}

// The numbers that TypeScript writes down a second time; test/native/constants.test.ts compares.
Napi::Object Constants(Napi::Env env) {
  Napi::Object all = Napi::Object::New(env);
  const auto set = [&](const char* name, uint32_t value) {
    all.Set(name, Napi::Number::New(env, value));
  };
  set("recordWords", sizeof(Record) / 4);
  set("entryWords", sizeof(Entry) / 4);
  set("maxMembers", kMaxMembers);
  set("maxBlobBytes", kMaxBlobBytes);
  set("kindReadRequest", kKindReadRequest);
  set("kindWriteRequest", kKindWriteRequest);
  set("kindUpgradeRequest", kKindUpgradeRequest);
  set("kindData", kKindData);
  set("kindGrant", kKindGrant);
  set("kindDataExclusive", kKindDataExclusive);
  set("kindWriteBack", kKindWriteBack);
  set("kindCluster", kKindCluster);
  set("stateNone", kStateNone);
  set("stateRead", kStateRead);
  set("stateWrite", kStateWrite);
  set("stateReading", kStateReading);
  set("stateWriting", kStateWriting);
  set("stateUpgrading", kStateUpgrading);
  set("pageHeld", kPageHeld);
  set("entryClean", kEntryClean);
  set("controlStateMask", kControlStateMask);
  set("pageDirect", kPageDirect);
  set("pageCollecting", kPageCollecting);
  set("eventMessage", kEventMessage);
  set("eventClusterFrame", kEventClusterFrame);
  set("eventOpened", kEventOpened);
  set("eventAccepted", kEventAccepted);
  set("eventClosed", kEventClosed);
  set("eventFault", kEventFault);
  set("eventWake", kEventWake);
  set("eventResumed", kEventResumed);
  set("actionSend", kActionSend);
  set("actionSendPage", kActionSendPage);
  set("actionSendBlob", kActionSendBlob);
  set("actionSendBlobTo", kActionSendBlobTo);
  set("actionProtect", kActionProtect);
  set("actionWake", kActionWake);
  set("protectWake", kProtectWake);
  set("protectInvalidate", kProtectInvalidate);
  return all;
}

}  // namespace pagemesh
