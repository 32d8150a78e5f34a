import Base
import EventLog

/// The cursors of all readers: a read that goes on where an earlier one of the same partition ended takes its cursor, so
/// that many readers at different positions each stream. librdkafka holds one position a partition and client, so the
/// n-th position of a partition lives in the n-th client.
final class CursorTable: Sendable {
    /// Positions of one partition at a time; one more waits for one of them, or takes over the oldest.
    static let positions = 8
    /// Seconds after which a cursor that nobody uses gives its memory back.
    static let idle = 1.0

    private struct Entry {
        var cursor: PartitionCursor?
        var next: Int64 = -1
        var busy = false
        var used: UInt64 = 0
        var usedAt = 0.0
    }

    private struct State {
        var entries: [TopicPartition: [Entry]] = [:]
        var clock: UInt64 = 0
        var closing = false
    }

    /// Entries and their cursors: each cursor is used by whoever set `busy`.
    /// Sendable because every access goes through the lock of `state`.
    private final class Box: @unchecked Sendable {
        let state = Monitor(State())
    }

    private let box = Box()
    private let clients = Monitor<[KafkaClient]>([])
    private let make: @Sendable (Int) throws(EventLogError) -> KafkaClient
    private let seconds: @Sendable () -> Double

    init(
        seconds: @escaping @Sendable () -> Double, make: @escaping @Sendable (Int) throws(EventLogError) -> KafkaClient
    ) {
        self.make = make
        self.seconds = seconds
    }

    private func client(_ index: Int) throws(EventLogError) -> KafkaClient {
        try clients.withLock { list throws(EventLogError) in
            while list.count <= index { list.append(try make(list.count)) }
            return list[index]
        }
    }

    var reports: [(name: String, report: KafkaClient.Report)] {
        clients.withLock { $0 }.map { ($0.name, $0.report) }
    }

    private enum Claim {
        case entry(Int, PartitionCursor?)
        /// Somebody else is reading just this: look again when it is done.
        case waited
        case closing
    }

    /// Takes the cursor that stands at the offset, else a free place, else the one that rested longest.
    private func claim(_ partition: TopicPartition, _ offset: Int64) -> Claim? {
        var waited = false
        return box.state.wait { state -> Claim? in
            if state.closing { return .closing }
            var list = state.entries[partition] ?? []
            if list.contains(where: { $0.busy && $0.next == offset }) {
                waited = true
                return nil
            }
            if waited { return .waited }
            defer { state.entries[partition] = list }
            var chosen = list.firstIndex { !$0.busy && $0.cursor != nil && $0.next == offset }
            if chosen == nil { chosen = list.firstIndex { !$0.busy && $0.cursor == nil } }
            if chosen == nil, list.count < CursorTable.positions {
                list.append(Entry())
                chosen = list.count - 1
            }
            if chosen == nil {
                chosen = list.indices.filter { !list[$0].busy }.min { list[$0].used < list[$1].used }
            }
            guard let chosen else { return nil }
            list[chosen].busy = true
            list[chosen].next = offset
            state.clock += 1
            list[chosen].used = state.clock
            return .entry(chosen, list[chosen].cursor)
        }
    }

    private func release(_ partition: TopicPartition, _ index: Int, _ cursor: PartitionCursor?) {
        let now = seconds()
        box.state.update { state in
            state.entries[partition]?[index].cursor = cursor
            state.entries[partition]?[index].next = cursor?.next ?? -1
            state.entries[partition]?[index].busy = false
            state.entries[partition]?[index].usedAt = now
        }
    }

    /// nil when another reader was at the same place: what it found is worth a look.
    func read(
        _ partition: TopicPartition, from offset: Int64, maxBytes: Int, below end: Int64, patience: Double
    ) throws(EventLogError) -> PartitionCursor.Page? {
        let index: Int
        var cursor: PartitionCursor?
        switch claim(partition, offset) {
        case .entry(let place, let found): (index, cursor) = (place, found)
        case .waited: return nil
        case .closing, nil:
            throw EventLogError("log-stopped", "the log is closing", fault: .world, retriable: true)
        }
        do {
            if let old = cursor, old.next != offset {
                old.close()
                cursor = nil
            }
            let current: PartitionCursor
            if let cursor {
                current = cursor
            } else {
                current = try PartitionCursor(partition, try client(index), from: offset)
                cursor = current
            }
            let page = try current.read(maxBytes: maxBytes, below: end, patience: patience)
            // At the end it would ask the brokers for more all the time, some of which answer at once with nothing; a
            // fresh start when there is more costs one round trip.
            if current.next >= end {
                current.close()
                release(partition, index, nil)
            } else {
                release(partition, index, current)
            }
            return page
        } catch {
            cursor?.close()
            release(partition, index, nil)
            throw error
        }
    }

    /// Gives back what rests.
    func sweep() {
        let now = seconds()
        close { now - $0.usedAt > CursorTable.idle }
    }

    private func close(where matches: (Entry) -> Bool) {
        // Busy until it is closed: another start of the same partition in the same client would be stopped with it.
        let gone: [(partition: TopicPartition, index: Int, cursor: PartitionCursor)] = box.state.withLock { state in
            var gone: [(TopicPartition, Int, PartitionCursor)] = []
            for partition in state.entries.keys.sorted() {
                for index in state.entries[partition, default: []].indices {
                    guard let entry = state.entries[partition]?[index], !entry.busy, let cursor = entry.cursor,
                        matches(entry)
                    else { continue }
                    gone.append((partition, index, cursor))
                    state.entries[partition]?[index].busy = true
                    state.entries[partition]?[index].next = -1
                }
            }
            return gone
        }
        for (partition, index, cursor) in gone {
            cursor.close()
            release(partition, index, nil)
        }
    }

    func close() {
        box.state.update { $0.closing = true }
        _ = box.state.wait(seconds: 30) { state in
            state.entries.values.allSatisfy { $0.allSatisfy { !$0.busy } } ? true : nil
        }
        close { _ in true }
        for client in clients.withLock({ $0 }) { client.close() }
    }
}
