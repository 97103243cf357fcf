#include <dlfcn.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/stamps.h"
#include "base/unique_fd.h"
#include "binding/arguments.h"
#include "binding/exports.h"
#include "binding/session.h"
#include "transport/verbs/verbs_inventory.h"

namespace pagemesh {
namespace {

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

bool CanOpenUserfaultfd(int flags) {
  const UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | flags)));
  return fd.valid();
}

template <typename Item, typename Convert>
Napi::Array ArrayOf(Napi::Env env, const std::vector<Item>& items, Convert convert) {
  Napi::Array array = Napi::Array::New(env, items.size());
  for (uint32_t i = 0; i < items.size(); i++) {
    Napi::Object object = Napi::Object::New(env);
    convert(items[i], object);
    array.Set(i, object);
  }
  return array;
}

void WriteGid(const RdmaGid& gid, Napi::Object into) {
  into.Set("index", gid.index);
  into.Set("address", gid.address);
  into.Set("kind", gid.kind);
  into.Set("network", gid.network);
}

void WritePort(const RdmaPort& port, Napi::Object into) {
  into.Set("number", port.number);
  into.Set("state", port.state);
  into.Set("linkLayer", port.link_layer);
  into.Set("activeMtuBytes", port.active_mtu_bytes);
  into.Set("gids", ArrayOf(into.Env(), port.gids, WriteGid));
}

void WriteDevice(const RdmaDevice& device, Napi::Object into) {
  into.Set("name", device.name);
  into.Set("hasProvider", device.has_provider);
  into.Set("errno", device.error);
  into.Set("ports", ArrayOf(into.Env(), device.ports, WritePort));
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

// rdmaDevices(): which there are, and what stands in the way of using them.
Napi::Value RdmaDevices(const Napi::CallbackInfo& info) {
  const RdmaInventory inventory = ListRdmaDevices();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("unavailable", inventory.unavailable);
  result.Set("devices", ArrayOf(info.Env(), inventory.devices, WriteDevice));
  return result;
}

#ifdef PAGEMESH_STAMPS
// stamps(room): what was kept since the last call, four numbers for each: when, what, region, page.
Napi::Value Stamps(const Napi::CallbackInfo& info) {
  const uint32_t room = Uint32Argument(info, 0);
  if (!info[0].IsNumber() || room > kMostStamps) return ThrowErrno(info.Env(), "stamps", EINVAL);
  const std::vector<KeptStamp> taken = TakeStamps(room);
  Napi::Float64Array result = Napi::Float64Array::New(info.Env(), 4 * taken.size());
  size_t at = 0;
  for (const KeptStamp& stamp : taken) {
    result[at++] = static_cast<double>(stamp.ns);
    result[at++] = static_cast<double>(stamp.point);
    result[at++] = stamp.region;
    result[at++] = stamp.page;
  }
  return result;
}
#endif

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
  set("kindTokenPassed", kKindTokenPassed);
  set("kindData", kKindData);
  set("kindGrant", kKindGrant);
  set("kindDataExclusive", kKindDataExclusive);
  set("kindWriteBack", kKindWriteBack);
  set("kindCluster", kKindCluster);
  set("kindBarrierArrive", kKindBarrierArrive);
  set("barrierEngineAwaits", kBarrierEngineAwaits);
  set("barrierBroken", kBarrierBroken);
  set("barrierSlotsUsed", kBarrierSlotsUsed);
  set("barrierHeaderWords", kBarrierHeaderWords);
  set("barrierKeyLow", kBarrierKeyLow);
  set("barrierKeyHigh", kBarrierKeyHigh);
  set("barrierCounts", kBarrierCounts);
  set("barrierSlotWords", kBarrierSlotWords);
  set("barrierSlots", kBarrierSlots);
  set("stateNone", kStateNone);
  set("stateRead", kStateRead);
  set("stateWrite", kStateWrite);
  set("stateReading", kStateReading);
  set("stateWriting", kStateWriting);
  set("stateUpgrading", kStateUpgrading);
  set("stateFilling", kStateFilling);
  set("stateFillingInVain", kStateFillingInVain);
  set("stateClaiming", kStateClaiming);
  set("stateClaimingHeard", kStateClaimingHeard);
  set("pageHeld", kPageHeld);
  set("entryClean", kEntryClean);
  set("controlOwnedAway", kControlOwnedAway);
  set("controlStateMask", kControlStateMask);
  set("controlClosed", kControlClosed);
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
  set("eventWord", kEventWord);
  set("eventLinkProbed", kEventLinkProbed);
  set("actionSend", kActionSend);
  set("actionSendPage", kActionSendPage);
  set("actionSendBlob", kActionSendBlob);
  set("actionSendBlobTo", kActionSendBlobTo);
  set("actionProtect", kActionProtect);
  set("actionWake", kActionWake);
  set("actionWord", kActionWord);
  set("actionOpen", kActionOpen);
  set("wordAdds", kWordAdds);
  set("wordCompares", kWordCompares);
  set("protectWake", kProtectWake);
  set("protectInvalidate", kProtectInvalidate);
#ifdef PAGEMESH_STAMPS
  const std::pair<const char*, Point> points[] = {
      {"pointEntered", Point::kEntered},
      {"pointFound", Point::kFound},
      {"pointCopied", Point::kCopied},
      {"pointAsking", Point::kAsking},
      {"pointPosted", Point::kPosted},
      {"pointSent", Point::kSent},
      {"pointEngineAwake", Point::kEngineAwake},
      {"pointSeen", Point::kSeen},
      {"pointHanded", Point::kHanded},
      {"pointStepped", Point::kStepped},
      {"pointProtected", Point::kProtected},
      {"pointCame", Point::kCame},
      {"pointWoken", Point::kWoken},
      {"pointRaised", Point::kRaised},
      {"pointLeft", Point::kLeft},
  };
  for (const auto& [name, point] : points) set(name, static_cast<uint32_t>(point));
#endif
  return all;
}

}  // namespace pagemesh
