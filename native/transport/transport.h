// What a transport is to the rest of a member. Reliable and ordered between each pair of members.
#ifndef PAGEMESH_TRANSPORT_TRANSPORT_H_
#define PAGEMESH_TRANSPORT_TRANSPORT_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "transport/wire.h"

namespace pagemesh {

// Why a connection ended, where errno does not say it.
enum class CloseReason : uint32_t {
  kEndOfStream = 1000,  // the other side closed it
  kBadRecord = 1001,    // a kind or length that cannot be
  kBadPage = 1002,      // page data that nobody asked for
  kNotReading = 1003,   // the other side lets too much pile up
  kByUs = 1004,
  kBadCredit = 1005,  // it says that it has room for more records than it ever offered
};
// From here on: kFirstVerbsReason + the status of the work completion that failed (ibv_wc_status).
constexpr uint32_t kFirstVerbsReason = 2000;
// From here on: kFirstVerbsEventReason + what the device reported (ibv_event_type).
constexpr uint32_t kFirstVerbsEventReason = 3000;

// Where a region's frames are in this process.
struct RegionMemory {
  uint32_t region = 0;
  uint8_t* base = nullptr;  // the service mapping
  size_t length = 0;
  uint32_t page_bytes = 0;
};

// Another member's memory of a region, mapped here too.
struct PeerMemory {
  uint8_t* frames = nullptr;
  size_t frames_bytes = 0;
  uint8_t* directory = nullptr;  // its entries, of 8 bytes each
  size_t directory_bytes = 0;
};

// Ways to a member that are faster than its connection.
enum class LinkWay : uint32_t {
  kVerbs = 0,  // a queue pair
  kShm = 1,    // memory that both map
};

// One port of an RDMA device, and the address that it uses there.
struct RdmaAddress {
  std::string device;
  uint8_t port = 0;
  uint8_t gid_index = 0;
};

// Where one member's words of a region are, for RDMA atomics.
struct WordsKey {
  uint32_t rkey = 0;
  uint64_t address = 0;
};

// One atomic operation on a word of 64 bits: adds `operand`, or with `compares` writes it if the
// word is `expected`.
struct WordChange {
  uint32_t request = 0;  // comes back with the word as it was
  bool compares = false;
  WordsKey word;
  uint64_t operand = 0;
  uint64_t expected = 0;
};

// Receives what arrives. Every call is made by the engine thread from within Transport functions.
class TransportClient {
 public:
  virtual ~TransportClient() = default;
  // Where the payload of a page record from `rank` goes; nullptr refuses it and ends the
  // connection. `length` is what the payload must have.
  virtual uint8_t* FrameFor(int rank, const Record& record, size_t* length) = 0;
  // A whole record, its payload (blobs only; pages are in their frames) in `blob`. `rank` is
  // kNoRank before Bind. Returns false if there is no room now: it is offered again later.
  virtual bool OnRecord(int connection, int rank, const Record& record, const uint8_t* blob) = 0;
  // A request from `rank` that can be answered as it is: fills in the answer and where its page is.
  // False: OnRecord must get it.
  virtual bool AnswerAtOnce(int rank, const Record& request, Record* answer,
                            const uint8_t** page) = 0;
  // Any thread, in signal handlers too: carries out an answer to a request of this member's, if it
  // is the last word and a faulting thread looks for it itself. False: OnRecord must get it.
  virtual bool TakeAnswer(int rank, const Record& record) = 0;
  // Any thread, in signal handlers too: whether TakeAnswer would carry out this answer once its
  // payload has come, and where that goes; nullptr if there is none.
  virtual bool ExpectsAnswer(int /*rank*/, const Record& /*record*/, uint8_t** /*frame*/) {
    return false;
  }
  // What the thread in this slot waits for; false if there is none. Any thread.
  virtual bool DescribeSlot(uint32_t slot, uint32_t* region, uint32_t* page) = 0;
  // A word as it was before a change that this member asked for. False as for OnRecord.
  virtual bool OnWord(uint32_t /*request*/, uint64_t /*before*/) { return true; }
  // Any thread, in signal handlers too. False if there is no such region.
  virtual bool DescribeRegion(uint32_t region, RegionMemory* memory) = 0;
  // The rank that homes the page, or kNoRank if there is no such page.
  virtual int HomeOf(uint32_t region, uint32_t page) = 0;
  virtual void OnOpened(int connection) = 0;
  virtual void OnAccepted(int connection) = 0;
  // `reason` is an errno, a CloseReason, or one of the verbs reasons.
  virtual void OnClosed(int connection, int rank, uint32_t reason) = 0;
  // What ProbeLink found out: 0 if the member's device has answered, else why not, as above.
  virtual void OnLinkProbed(int /*rank*/, uint32_t /*reason*/) {}
};

class Transport {
 public:
  static constexpr uint32_t kNoSlot = UINT32_MAX;

  virtual ~Transport() = default;

  // Control path. Engine thread, or before the engine runs. Return a number, or -errno.
  virtual int Listen(const char* host, uint16_t port) = 0;   // the port; IPv4 or IPv6 literal
  virtual int Connect(const char* host, uint16_t port) = 0;  // a connection number
  // The other side has proved who it is: from now on `rank` is reached through this connection.
  virtual bool Bind(int connection, int rank) = 0;
  virtual void Close(int connection) = 0;
  virtual void CloseAll() = 0;
  // Whether the member can still be reached.
  virtual bool IsOpen(int rank) const = 0;

  // Data path, engine thread. What is passed must stay unchanged until Flush returns.
  virtual void Queue(int rank, const Record* record, const uint8_t* payload) = 0;
  virtual void QueueTo(int connection, const Record* record, const uint8_t* payload) = 0;
  virtual void Flush() = 0;

  // Sends a request, or the token of a lock, now, from any thread and from inside a signal handler.
  // With a slot, the answer may be one that wakes nobody and names the slot. False: nothing was
  // sent.
  virtual bool TrySend(int rank, const Record& record, uint32_t slot) = 0;
  // The same for many, without a slot, in one system call where there is one. Returns how many of
  // them, from the first on, were sent.
  virtual uint32_t TrySendMany(int rank, const Record* records, uint32_t count) {
    uint32_t sent = 0;
    while (sent < count && TrySend(rank, records[sent], kNoSlot)) sent++;
    return sent;
  }

  // Tells a member that this one has come to a barrier; `which` stands for it on bells. Any thread
  // that is in no signal handler and cannot be interrupted by one. False: nothing was sent.
  virtual bool TrySendArrival(int rank, const Record& record, uint32_t /*which*/) {
    return TrySend(rank, record, kNoSlot);
  }

  // Whether answers to a member's requests may be queued one by one and flushed together.
  virtual bool TakesRuns(int /*rank*/) const { return true; }

  // Looking for what has arrived without a system call. What a transport that cannot says:
  virtual bool Polls() const { return false; }
  // Whether the engine may look for a while before it sleeps: somebody asks this member for pages.
  virtual bool Spins() const { return Polls(); }
  // Whether a faulting thread may look for this member's answers. Any thread.
  virtual bool MayAnswer(int /*rank*/) const { return false; }
  // Faulting threads, in signal handlers. True: something is there for the engine.
  virtual bool PollAnswers() { return false; }
  // A faulting thread begins to look for this member's answers, and ends. What comes between need
  // not wake the engine, for the thread looks at all of it. False: nothing is to be ended.
  virtual bool BeginLooking(int /*rank*/) { return false; }
  virtual void EndLooking(int /*rank*/) {}
  // A thread that looked for its answer is about to sleep: from now on answers wake the engine. As
  // PollAnswers otherwise.
  virtual bool WatchAnswers() { return false; }
  // The program's thread is about to sleep until the token of a lock is passed on to it: takes what
  // has come so far. As PollAnswers otherwise.
  virtual bool WatchTokens() { return false; }
  // Engine thread: hands over what is there. True if there was something, event or not.
  virtual bool Poll() { return false; }
  // Engine thread, before it sleeps: its descriptor becomes ready for what arrives from now on,
  // answers that wake nobody only if `every_answer`. Poll must follow.
  virtual void Arm(bool /*every_answer*/) {}
  // Engine thread: it sleeps no more, and will look at everything before it does again.
  virtual void Disarm() {}
  // Engine thread: it is done with all events that it was ever given.
  virtual void MarkStepped() {}

  // Links: a faster way to a member, agreed on over its connection before any record was sent.
  // Engine thread. What a transport without links says:
  // Opens a device for links. `*what` says what it is like, or why it cannot be used.
  virtual bool OpenLinks(const RdmaAddress& /*at*/, int /*rank*/, std::string* what) {
    *what = "pagemesh was built without the RDMA headers (libibverbs-dev)";
    return false;
  }
  // The same for memory of this host.
  virtual bool OpenShm(int /*rank*/, std::string* what) {
    *what = "this transport shares no memory";
    return false;
  }
  // What the member must be told, what it has told, and whether it can be reached, which
  // OnLinkProbed tells (both have taken the other's offer before); then from when on records go
  // over the link, or that none ever will. False with errno set.
  virtual bool OfferLink(LinkWay /*way*/, int /*rank*/, std::vector<uint8_t>* /*offer*/) {
    errno = ENODEV;
    return false;
  }
  virtual bool AcceptLink(LinkWay /*way*/, int /*rank*/, const std::vector<uint8_t>& /*offer*/) {
    errno = ENODEV;
    return false;
  }
  virtual bool ProbeLink(LinkWay /*way*/, int /*rank*/) {
    errno = ENODEV;
    return false;
  }
  virtual void UseLink(LinkWay /*way*/, int /*rank*/) {}
  virtual void DropLink(LinkWay /*way*/, int /*rank*/) {}
  // Whether a region of so many bytes can be made reachable; counts it if so.
  virtual bool AdmitRegion(size_t /*bytes*/) { return true; }
  // A region has been mapped: hands its memory, frames and then the directory, to members that this
  // one shares memory with. Errno, or 0.
  virtual int ShareRegion(uint32_t /*region*/, int /*fd*/, size_t /*frames_bytes*/,
                          size_t /*total_bytes*/) {
    return 0;
  }
  // A member's memory of a region, if it is a link's other end; false if not. Any thread.
  virtual bool FindPeerMemory(int /*rank*/, uint32_t /*region*/, PeerMemory* /*memory*/) const {
    return false;
  }
  // Whether a member is done with all notices that this one has given copies back. Any thread.
  virtual bool HasSteppedDiscards(int /*rank*/) const { return false; }
  // The region is about to be unmapped: withdraws what peers may write.
  virtual void ForgetRegion(uint32_t /*region*/) {}
  // Lets peers, and this member by ChangeWord, change the words of this memory by RDMA atomics.
  // False if that cannot be. ForgetRegion withdraws it.
  virtual bool ShareWords(uint32_t /*region*/, uint8_t* /*base*/, size_t /*length*/,
                          WordsKey* /*key*/) {
    return false;
  }
  // Changes a word at a member, or at this one; the client's OnWord tells how it was. If the link
  // fails the member's connection closes, and no answer comes.
  virtual void ChangeWord(int /*rank*/, const WordChange& /*change*/) {}
  // How many records came over links.
  virtual uint64_t LinkRecords(LinkWay /*way*/) const { return 0; }

  // Something happened to the descriptor that was registered with `token`. Engine thread.
  virtual void OnReady(uint32_t token, uint32_t events) = 0;
  // Offers again what OnRecord refused. Engine thread. True if something is still refused.
  virtual bool Resume() = 0;
};

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_TRANSPORT_H_
