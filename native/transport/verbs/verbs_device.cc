#include "transport/verbs/verbs_device.h"

#if PAGEMESH_HAS_VERBS

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <algorithm>

#include "transport/verbs/verbs_link.h"

namespace pagemesh {
namespace {

constexpr int kMaxGids = 256;

// RoCE writes an IPv4 address as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) into the GID.
bool GidOf(const std::string& host, ibv_gid* gid) {
  memset(gid->raw, 0, sizeof(gid->raw));
  if (inet_pton(AF_INET6, host.c_str(), gid->raw) == 1) return true;
  gid->raw[10] = gid->raw[11] = 0xff;
  return inet_pton(AF_INET, host.c_str(), gid->raw + 12) == 1;
}

// libibverbs tells the kind of a GID only through an extended call; sysfs has it on all versions.
bool IsRoceV2(const std::string& device, int port, int index) {
  const std::string path = "/sys/class/infiniband/" + device + "/ports/" + std::to_string(port) +
                           "/gid_attrs/types/" + std::to_string(index);
  FILE* file = fopen(path.c_str(), "re");
  if (file == nullptr) return false;
  char text[32] = {};
  const bool read = fgets(text, sizeof(text), file) != nullptr;
  fclose(file);
  return read && strncmp(text, "RoCE v2", 7) == 0;
}

bool ParseChoice(const std::string& choice, VerbsPort* port) {
  const size_t first = choice.find(':');
  const size_t second = first == std::string::npos ? first : choice.find(':', first + 1);
  if (second == std::string::npos) return false;
  port->device = choice.substr(0, first);
  port->port = static_cast<uint8_t>(atoi(choice.c_str() + first + 1));
  port->gid_index = atoi(choice.c_str() + second + 1);
  return port->port > 0 && port->gid_index >= 0 && port->gid_index < kMaxGids;
}

class DeviceList {
 public:
  explicit DeviceList(const VerbsLibrary* verbs) : verbs_(verbs) {
    list_ = verbs->get_device_list(&count_);
  }
  ~DeviceList() {
    if (list_ != nullptr) verbs_->free_device_list(list_);
  }
  DeviceList(const DeviceList&) = delete;
  DeviceList& operator=(const DeviceList&) = delete;
  int count() const { return list_ == nullptr ? 0 : count_; }
  ibv_device* at(int index) const { return list_[index]; }

 private:
  const VerbsLibrary* const verbs_;
  ibv_device** list_;
  int count_ = 0;
};

// Finds the GID of `host` on one device; fills `port`.
bool FindPort(const VerbsLibrary& verbs, ibv_context* context, const ibv_gid& wanted,
              const std::string& device, VerbsPort* port) {
  ibv_device_attr attributes = {};
  if (verbs.query_device(context, &attributes) != 0) return false;
  for (int number = 1; number <= attributes.phys_port_cnt; number++) {
    for (int index = 0; index < kMaxGids; index++) {
      ibv_gid gid = {};
      if (verbs.query_gid(context, static_cast<uint8_t>(number), index, &gid) != 0) break;
      if (memcmp(gid.raw, wanted.raw, sizeof(gid.raw)) != 0) continue;
      if (!IsRoceV2(device, number, index)) continue;
      port->device = device;
      port->port = static_cast<uint8_t>(number);
      port->gid_index = index;
      return true;
    }
  }
  return false;
}

bool CheckPort(const VerbsLibrary& verbs, ibv_context* context, VerbsPort* port, std::string* why) {
  ibv_port_attr attributes = {};
  // The old layout is the beginning of the new one, and all that is needed here.
  const int failed =
      verbs.query_port(context, port->port, reinterpret_cast<_compat_ibv_port_attr*>(&attributes));
  if (failed != 0 || attributes.state != IBV_PORT_ACTIVE) {
    *why = "port " + std::to_string(port->port) + " of " + port->device + " is not active";
    return false;
  }
  port->mtu = attributes.active_mtu;
  if (verbs.query_gid(context, port->port, port->gid_index, &port->gid) != 0) {
    *why = port->device + " has no GID " + std::to_string(port->gid_index);
    return false;
  }
  return true;
}

}  // namespace

std::unique_ptr<VerbsDevice> VerbsDevice::Open(const std::string& host, const std::string& choice,
                                               int members, std::string* why) {
  const char* missing = nullptr;
  const VerbsLibrary* verbs = VerbsLibrary::Load(&missing);
  if (verbs == nullptr) {
    *why = missing;
    return nullptr;
  }
  VerbsPort port;
  ibv_gid wanted;
  if (!choice.empty() && !ParseChoice(choice, &port)) {
    *why = "'" + choice + "' is not device:port:gid-index";
    return nullptr;
  }
  if (!GidOf(host, &wanted)) {
    *why = host + " is no address";
    return nullptr;
  }
  const DeviceList list(verbs);
  *why = list.count() == 0 ? "there is no RDMA device"
                           : "no RDMA device has the RoCE v2 address " + host;
  for (int i = 0; i < list.count(); i++) {
    const std::string name = verbs->get_device_name(list.at(i));
    if (!choice.empty() && name != port.device) continue;
    std::unique_ptr<VerbsDevice> device(new VerbsDevice());
    device->library_ = verbs;
    device->context_ = verbs->open_device(list.at(i));
    if (device->context_ == nullptr) {
      *why = "cannot open " + name + ": " + strerror(errno);
      continue;
    }
    if (choice.empty() && !FindPort(*verbs, device->context_, wanted, name, &port)) continue;
    if (!CheckPort(*verbs, device->context_, &port, why)) continue;
    device->port_ = port;
    if (device->OpenQueues(members, why)) return device;
  }
  return nullptr;
}

bool VerbsDevice::OpenQueues(int members, std::string* why) {
  pd_ = library_->alloc_pd(context_);
  if (pd_ != nullptr) channel_ = library_->create_comp_channel(context_);
  // Large enough for every completion that all links together can cause: it cannot overrun.
  if (channel_ != nullptr) {
    cq_ = library_->create_cq(context_, members * VerbsLink::kMaxCompletions, nullptr, channel_, 0);
  }
  if (channel_ == nullptr || cq_ == nullptr) {
    *why = std::string("cannot set up ") + port_.device + ": " + strerror(errno);
    return false;
  }
  fcntl(channel_->fd, F_SETFL, fcntl(channel_->fd, F_GETFL) | O_NONBLOCK);
  return true;
}

VerbsDevice::~VerbsDevice() {
  for (uint32_t region = 0; region < kMaxRegions; region++) Forget(region);
  if (cq_ != nullptr) library_->destroy_cq(cq_);
  if (channel_ != nullptr) library_->destroy_comp_channel(channel_);
  if (pd_ != nullptr) library_->dealloc_pd(pd_);
  if (context_ != nullptr) library_->close_device(context_);
}

size_t VerbsDevice::MemlockLimit() {
  constexpr int kCapIpcLock = 14;
  unsigned long long effective = 0;
  FILE* status = fopen("/proc/self/status", "re");
  char line[256];
  while (status != nullptr && fgets(line, sizeof(line), status) != nullptr) {
    if (strncmp(line, "CapEff:", 7) == 0) effective = strtoull(line + 7, nullptr, 16);
  }
  if (status != nullptr) fclose(status);
  if ((effective >> kCapIpcLock & 1) != 0) return SIZE_MAX;
  rlimit limit = {};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
  return static_cast<size_t>(limit.rlim_cur);
}

void VerbsDevice::AcknowledgeEvents() {
  ibv_cq* cq = nullptr;
  void* cookie = nullptr;
  unsigned int count = 0;
  while (library_->get_cq_event(channel_, &cq, &cookie) == 0) count++;
  if (count > 0) library_->ack_cq_events(cq_, count);
}

void VerbsDevice::Arm(bool every_completion) { ibv_req_notify_cq(cq_, every_completion ? 0 : 1); }

ibv_mr* VerbsDevice::Register(const RegionMemory& memory, uint32_t page) {
  ibv_mr* found = FindRegistered(memory, page);
  if (found != nullptr || memory.region >= kMaxRegions) return found;
  Chunks* chunks = regions_[memory.region].load();
  if (chunks == nullptr) {
    chunks = new Chunks();
    chunks->count = (memory.length + kVerbsChunkBytes - 1) / kVerbsChunkBytes;
    chunks->registered = std::make_unique<std::atomic<ibv_mr*>[]>(chunks->count);
    regions_[memory.region].store(chunks);
  }
  const size_t chunk = static_cast<size_t>(page) * memory.page_bytes / kVerbsChunkBytes;
  const size_t offset = chunk * kVerbsChunkBytes;
  ibv_mr* mr = library_->reg_mr(pd_, memory.base + offset,
                                std::min(kVerbsChunkBytes, memory.length - offset),
                                IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
  chunks->registered[chunk].store(mr, std::memory_order_release);
  return mr;
}

ibv_mr* VerbsDevice::FindRegistered(const RegionMemory& memory, uint32_t page) const {
  if (memory.region >= kMaxRegions) return nullptr;
  const Chunks* chunks = regions_[memory.region].load(std::memory_order_acquire);
  if (chunks == nullptr) return nullptr;
  const size_t chunk = static_cast<size_t>(page) * memory.page_bytes / kVerbsChunkBytes;
  return chunk < chunks->count ? chunks->registered[chunk].load(std::memory_order_acquire)
                               : nullptr;
}

void VerbsDevice::Forget(uint32_t region) {
  if (region >= kMaxRegions) return;
  Chunks* chunks = regions_[region].exchange(nullptr);
  if (chunks == nullptr) return;
  for (size_t i = 0; i < chunks->count; i++) {
    ibv_mr* mr = chunks->registered[i].load();
    if (mr != nullptr) library_->dereg_mr(mr);
  }
  delete chunks;
}

}  // namespace pagemesh

#endif  // PAGEMESH_HAS_VERBS
