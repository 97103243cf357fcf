#include "transport/verbs/verbs_device.h"

#if PAGEMESH_HAS_VERBS

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

// The kernel asks for CAP_IPC_LOCK in the first user namespace. A container's root may have it in
// its own only, which looks alike but for the map of users; as in lib/cli/doctor-rdma.ts.
bool MayLockAnything() {
  constexpr int kCapIpcLock = 14;
  constexpr unsigned long kAllUsers = 0xffffffff;
  unsigned long long effective = 0;
  unsigned long inside = 1, outside = 1, count = 0;
  char line[256];
  FILE* status = fopen("/proc/self/status", "re");
  while (status != nullptr && fgets(line, sizeof(line), status) != nullptr) {
    if (strncmp(line, "CapEff:", 7) == 0) effective = strtoull(line + 7, nullptr, 16);
  }
  if (status != nullptr) fclose(status);
  FILE* users = fopen("/proc/self/uid_map", "re");
  if (users != nullptr && fgets(line, sizeof(line), users) != nullptr) {
    char* next = line;
    inside = strtoul(next, &next, 10);
    outside = strtoul(next, &next, 10);
    count = strtoul(next, &next, 10);
  }
  if (users != nullptr) fclose(users);
  const bool first_namespace = inside == 0 && outside == 0 && count == kAllUsers;
  return first_namespace && (effective >> kCapIpcLock & 1) != 0;
}

}  // namespace

std::unique_ptr<VerbsDevice> VerbsDevice::Open(const RdmaAddress& at, int members,
                                               std::string* why) {
  const char* missing = nullptr;
  const VerbsLibrary* verbs = VerbsLibrary::Load(&missing);
  if (verbs == nullptr) {
    *why = missing;
    return nullptr;
  }
  const VerbsDeviceList list(verbs);
  *why = "there is no RDMA device '" + at.device + "'";
  for (int i = 0; i < list.count(); i++) {
    if (at.device != verbs->get_device_name(list.at(i))) continue;
    std::unique_ptr<VerbsDevice> device(new VerbsDevice());
    device->library_ = verbs;
    device->context_ = verbs->open_device(list.at(i));
    if (device->context_ == nullptr) {
      *why = "cannot open " + at.device + ": " + strerror(errno);
      return nullptr;
    }
    device->port_.device = at.device;
    device->port_.port = at.port;
    device->port_.gid_index = at.gid_index;
    const bool usable = CheckPort(*verbs, device->context_, &device->port_, why);
    return usable && device->OpenQueues(members, why) ? std::move(device) : nullptr;
  }
  return nullptr;
}

bool VerbsDevice::OpenQueues(int members, std::string* why) {
  ibv_device_attr attributes = {};
  if (library_->query_device(context_, &attributes) == 0) {
    max_atomics_out_ = static_cast<uint32_t>(std::min(attributes.max_qp_init_rd_atom, kMaxAtomics));
    max_atomics_in_ = static_cast<uint32_t>(std::min(attributes.max_qp_rd_atom, kMaxAtomics));
    has_atomics_ =
        attributes.atomic_cap != IBV_ATOMIC_NONE && max_atomics_out_ > 0 && max_atomics_in_ > 0;
  }
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
  for (const int fd : {channel_->fd, context_->async_fd}) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
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
  if (MayLockAnything()) return SIZE_MAX;
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

bool VerbsDevice::TakeEvent(ibv_event_type* type, uint32_t* qp_number) {
  ibv_async_event event = {};
  while (library_->get_async_event(context_, &event) == 0) {
    const ibv_event_type found = event.event_type;
    const bool of_pair = found == IBV_EVENT_QP_FATAL || found == IBV_EVENT_QP_REQ_ERR ||
                         found == IBV_EVENT_QP_ACCESS_ERR;
    *qp_number = of_pair ? event.element.qp->qp_num : 0;
    library_->ack_async_event(&event);  // a queue pair cannot go before this
    *type = found;
    if (of_pair || found == IBV_EVENT_DEVICE_FATAL || found == IBV_EVENT_CQ_ERR) return true;
  }
  return false;
}

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
