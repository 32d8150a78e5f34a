import Base

/// Timers in (time, stage, key) order: a binary heap whose removed entries are skipped when they come up.
struct TimerQueue {
    struct Entry: Hashable, Comparable {
        let time: Instant
        let stage: Int
        let key: String

        static func < (left: Entry, right: Entry) -> Bool {
            if left.time != right.time { return left.time < right.time }
            if left.stage != right.stage { return left.stage < right.stage }
            return left.key.utf8.lexicographicallyPrecedes(right.key.utf8)
        }

        /// A text that sorts and reads back, for the state store.
        var name: String { "\(stage)|\(time.milliseconds)|\(key)" }

        init(time: Instant, stage: Int, key: String) {
            self.time = time
            self.stage = stage
            self.key = key
        }

        init?(name: String) {
            let parts = name.split(separator: "|", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3, let stage = Int(parts[0]), let time = Int64(parts[1]) else { return nil }
            self.init(time: Instant(milliseconds: time), stage: stage, key: String(parts[2]))
        }
    }

    /// Which timers are set; the truth that is checkpointed and digested.
    let store = StateStore<TimerMark>(name: "runner.timers")
    private var heap: [Entry] = []
    /// The first of the heap is known to be set: it is asked for before every event.
    private var isFirstSet = false

    mutating func insert(_ entry: Entry) {
        let name = entry.name
        guard !store.has(name) else { return }
        store.set(name, TimerMark())
        push(entry)
    }

    mutating func remove(_ entry: Entry) {
        _ = store.remove(entry.name)
        isFirstSet = false
    }

    /// Rebuilds the heap from the loaded store.
    mutating func restore() {
        heap = store.sortedKeys.compactMap { Entry(name: $0) }.sorted()
        isFirstSet = false
    }

    /// The next timer that is still set.
    mutating func peek() -> Entry? {
        while let first = heap.first {
            if isFirstSet { return first }
            if store.has(first.name) {
                isFirstSet = true
                return first
            }
            pop()
        }
        return nil
    }

    mutating func take() -> Entry? {
        guard let first = peek() else { return nil }
        pop()
        _ = store.remove(first.name)
        return first
    }

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
        var parent = 0
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

struct TimerMark: StateValue {
    init() {}
    func encode(into writer: inout ByteWriter) { writer.append(UInt8(1)) }
    init(decoding reader: inout ByteReader) throws(BaseError) { try reader.skip(1) }
}
