import Base

/// Timers in (time, stage, key) order: a binary heap whose removed entries are skipped when they come up. The heap holds the
/// timers of the near future; those further off are read from the disk when their time comes.
package struct TimerQueue {
    /// Timers read at once.
    private let page: Int
    /// Timers that may wait in memory; of more, the further ones are left to the disk.
    private let heapLimit: Int

    package struct Entry: Comparable {
        package let time: Instant
        package let stage: Int
        package let key: String

        package static func < (left: Entry, right: Entry) -> Bool {
            if left.time != right.time { return left.time < right.time }
            if left.stage != right.stage { return left.stage < right.stage }
            return left.key.utf8.lexicographicallyPrecedes(right.key.utf8)
        }

        /// Counts checkpoints: it was set before the one that began as this one's number, or is on the disk.
        fileprivate(set) var epoch: UInt32 = 0

        /// What the store keeps it under: stage, milliseconds since 1970, key, with bars between them.
        package var name: String {
            var bytes: [UInt8] = []
            bytes.reserveCapacity(24 + key.utf8.count)
            JSONNumber.append(Int64(stage), to: &bytes)
            bytes.append(UInt8(ascii: "|"))
            JSONNumber.append(time.milliseconds, to: &bytes)
            bytes.append(UInt8(ascii: "|"))
            bytes.append(contentsOf: key.utf8)
            return String(decoding: bytes, as: UTF8.self)
        }

        package init(time: Instant, stage: Int, key: String) {
            self.time = time
            self.stage = stage
            self.key = key
        }

        package init?(name: String) {
            // By bytes: a bar and a mark that a key begins with are one character.
            let parts = name.utf8.split(separator: 0x7C, maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3, let stage = Int(Substring(parts[0])), let time = Int64(Substring(parts[1])) else {
                return nil
            }
            self.init(time: Instant(milliseconds: time), stage: stage, key: String(Substring(parts[2])))
        }
    }

    /// Which timers are set; the truth that is checkpointed and digested. On the disk they stand by their time.
    package let store: StateStore<TimerMark>
    private var heap: [Entry] = []
    /// The first of the heap is known to be set: it is asked for before every event.
    private var isFirstSet = false
    /// Counts checkpoints.
    private var epoch: UInt32 = 1
    /// Every timer that is set for an earlier time is in the heap; nil where all of them are.
    private var frontier: Instant?

    // MARK: Places

    /// Bits of a place below those of the time: they tell apart what is due at once.
    private static let tieBits: UInt64 = 15
    /// Times beyond these stand with the last of them; between them lie all that can be written.
    private static let edge: Int64 = 1 << 48

    private static func place(of time: Int64, _ tie: UInt64) -> UInt64 {
        UInt64(min(max(time, -edge), edge - 1) + edge) << tieBits | tie & (1 << tieBits - 1)
    }

    /// The time in a timer's name.
    private static func time(of name: UnsafeRawBufferPointer) -> Int64 {
        guard let bar = name.firstIndex(of: UInt8(ascii: "|")) else { return 0 }
        var at = bar + 1
        let isNegative = at < name.count && name[at] == UInt8(ascii: "-")
        if isNegative { at += 1 }
        var time: Int64 = 0
        while at < name.count, name[at] >= 0x30, name[at] <= 0x39 {
            time = time &* 10 &+ Int64(name[at] - 0x30)
            at += 1
        }
        return isNegative ? 0 &- time : time
    }

    /// - Parameter store: its name.
    package init(page: Int = 4096, heapLimit: Int = 1 << 18, store: String = "runner.timers") {
        self.store = StateStore<TimerMark>(name: store) { name in
            TimerQueue.place(of: TimerQueue.time(of: name), StateKey.hash(name))
        }
        self.page = page
        self.heapLimit = heapLimit
    }

    // MARK: Setting

    package mutating func insert(_ entry: Entry) {
        let name = entry.name
        guard !store.has(name) else { return }
        store.set(name, TimerMark())
        var entry = entry
        entry.epoch = epoch
        push(entry)
    }

    package mutating func remove(_ entry: Entry) {
        _ = store.remove(entry.name)
        isFirstSet = false
    }

    /// Begins anew with what is stored.
    package mutating func restore() {
        heap = []
        isFirstSet = false
        frontier = store.isOnDisk ? .distantPast : nil
    }

    // MARK: Taking

    /// The next timer that is still set.
    package mutating func peek() -> Entry? {
        while true {
            if let frontier, heap.first.map({ $0.time >= frontier }) ?? true {
                readOn()
                guard store.failure == nil else { return nil }
                continue
            }
            guard let first = heap.first else { return nil }
            if isFirstSet { return first }
            if store.has(first.name) {
                isFirstSet = true
                return first
            }
            pop()
        }
    }

    package mutating func take() -> Entry? {
        guard let first = peek() else { return nil }
        pop()
        _ = store.remove(first.name)
        return first
    }

    /// Takes the next page of the disk's timers into the heap, and all that are due at the same time as its last.
    private mutating func readOn() {
        guard let from = frontier else { return }
        frontier = nil
        var count = 0
        var last = Int64.min
        var found: [Entry] = []
        let isRead = store.forEachStored(from: Self.place(of: from.milliseconds, 0)) { name in
            guard let entry = Entry(name: name) else {
                store.fail("the timer '\(name)' has no time")
                return false
            }
            let time = entry.time.milliseconds
            // What stands at the same edge has no order on the disk.
            if count >= page, time != last, time < Self.edge, time > -Self.edge {
                frontier = entry.time
                return false
            }
            count += 1
            last = time
            found.append(entry)
            return true
        }
        guard isRead, store.failure == nil else {
            // The fold ends at its next step; until then nobody takes what was not read for nothing.
            frontier = from
            return
        }
        isFirstSet = false
        for entry in found { push(entry) }
    }

    /// A checkpoint begins: what is set from now on is not in it.
    package mutating func checkpointBegins() { epoch &+= 1 }

    /// A checkpoint is on the disk, and none is under way: leaves the further ones of very many timers to the disk.
    package mutating func shrink() {
        guard heap.count > heapLimit, store.isOnDisk else { return }
        // A sample's share is near enough to that of all.
        let sample = stride(from: 0, to: heap.count, by: max(1, heap.count / 1024)).map { heap[$0].time }.sorted()
        let cut = sample[sample.count * heapLimit / 2 / heap.count]
        guard cut > heap[0].time, cut.milliseconds < Self.edge, cut.milliseconds > -Self.edge else { return }
        // What was set since is nowhere else.
        heap = heap.filter { $0.time < cut || $0.epoch == epoch }
        for parent in stride(from: heap.count / 2 - 1, through: 0, by: -1) { sink(parent) }
        frontier = min(frontier ?? .distantFuture, cut)
        isFirstSet = false
    }

    // MARK: The heap

    private mutating func push(_ entry: Entry) {
        // Whatever comes to stand first is set: it is this one, or the one that was.
        heap.append(entry)
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child] < heap[parent] else { return }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func pop() {
        isFirstSet = false
        let last = heap.removeLast()
        guard !heap.isEmpty else { return }
        heap[0] = last
        sink(0)
    }

    private mutating func sink(_ start: Int) {
        var parent = start
        while true {
            var child = parent * 2 + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, heap[child + 1] < heap[child] { child += 1 }
            guard heap[child] < heap[parent] else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }
}

package struct TimerMark: StateValue {
    init() {}
    package func encode(into writer: inout ByteWriter) { writer.append(UInt8(1)) }
    package init(decoding reader: inout ByteReader) throws(BaseError) { try reader.skip(1) }
}
