import Base
import RecordFormat
import Synchronization

/// Who waits for new batches, and the threads that read for all of them. Sendable because its table is behind a lock.
package final class FollowerHub: Sendable {
    /// Threads that read what is not in memory; jobs that may wait for them.
    private static let threads = 2
    private static let waiting = 100_000

    private struct State {
        var waiters: [Int: (partitions: [TopicPartition], continuation: CheckedContinuation<Void, Never>)] = [:]
        var byPartition: [TopicPartition: Set<Int>] = [:]
        var next = 0
        /// How often something was published in each partition, so that what comes between a look and a wait is not missed.
        var versions: [TopicPartition: UInt64] = [:]
        var closed = false
        var streams: [Int: AsyncStream<UInt64>.Continuation] = [:]
        var listeners: [Int: @Sendable () -> Void] = [:]
    }

    let tail = TailCache()
    private let state = Mutex(State())
    private let pool = Mutex<BlockingPool?>(nil)

    package init() {}

    private static func version(_ partitions: [TopicPartition], _ state: borrowing State) -> UInt64 {
        var sum: UInt64 = 0
        for partition in partitions { sum &+= state.versions[partition] ?? 0 }
        return sum
    }

    func version(of partitions: [TopicPartition]) -> UInt64 {
        state.withLock { FollowerHub.version(partitions, $0) }
    }
    var isClosed: Bool { state.withLock { $0.closed } }

    /// Started with the first follower: most logs have none.
    func readers() -> BlockingPool {
        pool.withLock { pool in
            if let pool { return pool }
            let fresh = BlockingPool(name: "log-follow", threads: FollowerHub.threads, limit: FollowerHub.waiting)
            pool = fresh
            return fresh
        }
    }

    /// New batches are readable.
    package func wake(_ partitions: [TopicPartition]) {
        let ready: [CheckedContinuation<Void, Never>] = state.withLock { state in
            let changed = Set(partitions)
            for partition in changed { state.versions[partition, default: 0] &+= 1 }
            guard !state.waiters.isEmpty else { return [] }
            var numbers: Set<Int> = []
            for partition in changed { numbers.formUnion(state.byPartition[partition] ?? []) }
            return numbers.sorted().compactMap { take($0, &state) }
        }
        for continuation in ready { continuation.resume() }
    }

    private func take(_ number: Int, _ state: inout State) -> CheckedContinuation<Void, Never>? {
        guard let waiter = state.waiters.removeValue(forKey: number) else { return nil }
        for partition in waiter.partitions { state.byPartition[partition]?.remove(number) }
        return waiter.continuation
    }

    /// Waits until something was published since `version` in one of the partitions, the log closes or the task ends.
    func wait(_ partitions: [TopicPartition], since version: UInt64) async {
        let number = state.withLock { state in
            state.next += 1
            return state.next
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let passes = state.withLock { state in
                    if state.closed || FollowerHub.version(partitions, state) != version || Task.isCancelled {
                        return true
                    }
                    state.waiters[number] = (partitions, continuation)
                    for partition in partitions { state.byPartition[partition, default: []].insert(number) }
                    return false
                }
                if passes { continuation.resume() }
            }
        } onCancel: {
            let waiter = state.withLock { take(number, &$0) }
            waiter?.resume()
        }
    }

    /// A log's version whenever it moves; only the newest is kept for a slow reader.
    /// - Parameter current: asked once the stream is known, so that no version is missed.
    package func changes(_ current: () -> UInt64) -> AsyncStream<UInt64> {
        AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
            let number: Int? = state.withLock { state in
                guard !state.closed else { return nil }
                state.next += 1
                state.streams[state.next] = continuation
                return state.next
            }
            guard let number else { return continuation.finish() }
            continuation.onTermination = { [weak self] _ in
                self?.state.withLock { _ = $0.streams.removeValue(forKey: number) }
            }
            continuation.yield(current())
        }
    }

    package func announce(_ version: UInt64) {
        let (streams, listeners) = state.withLock { (Array($0.streams.values), Array($0.listeners.values)) }
        for continuation in streams { continuation.yield(version) }
        for listener in listeners { listener() }
    }

    /// Calls `body` whenever more can be read, from the log's own thread: it must be quick, and ask the log for nothing.
    /// Ends with what is returned.
    package func listen(_ body: @escaping @Sendable () -> Void) -> LogListening {
        let number = state.withLock { state in
            state.next += 1
            state.listeners[state.next] = body
            return state.next
        }
        return LogListening { [weak self] in self?.state.withLock { _ = $0.listeners.removeValue(forKey: number) } }
    }

    package func close() {
        let (all, streams) = state.withLock { state in
            state.closed = true
            defer { state.streams = [:] }
            return (state.waiters.keys.sorted().compactMap { take($0, &state) }, Array(state.streams.values))
        }
        for continuation in all { continuation.resume() }
        // Finishing calls back into the table, so it happens outside its lock.
        for continuation in streams { continuation.finish() }
        tail.clear()
    }
}

/// Somebody is told of changes as long as this is kept.
package final class LogListening: Sendable {
    private let end: @Sendable () -> Void
    init(_ end: @escaping @Sendable () -> Void) { self.end = end }
    deinit { end() }
}

/// Follows partitions of a log: each call gives what comes next, as fast as the caller asks and no faster. One caller at
/// a time. Many followers at the end of a partition get the same decoded batches.
package actor LogFollower {
    /// Bytes as stored that one partition gives at a time.
    package static let pageBytes = 1 << 20

    private var page = LogFollower.pageBytes
    private let log: any EventLog
    private let hub: FollowerHub
    private let partitions: [TopicPartition]
    /// The next offset of every partition.
    package private(set) var positions: [TopicPartition: Int64]
    private var turn = 0

    init(log: any EventLog, hub: FollowerHub, positions: [TopicPartition: Int64]) {
        self.log = log
        self.hub = hub
        self.positions = positions
        partitions = positions.keys.sorted()
    }

    /// A follower of any log, from offsets that it still has.
    package static func make(
        log: any EventLog, hub: FollowerHub, positions: [TopicPartition: Int64]
    ) throws(EventLogError) -> LogFollower {
        guard !positions.isEmpty else {
            throw EventLogError("bad-offset", "a follower needs at least one partition to follow")
        }
        for (partition, offset) in positions {
            let readable = try log.offsets(partition)
            guard offset >= readable.lowerBound else {
                throw EventLogError(
                    "trimmed",
                    "offsets of \(partition) below \(readable.lowerBound) were given up by retention; follow from there"
                )
            }
        }
        return LogFollower(log: log, hub: hub, positions: positions)
    }

    /// Bytes as stored that are read at a time from now on.
    package func take(pagesOf bytes: Int) { page = bytes }

    /// The next events of one of the partitions, each in turn; waits when there are none. nil when the log closes or the
    /// task is cancelled. Events below the position asked for may stand at the front of the first batch: `from` tells.
    package func next() async throws -> (partition: TopicPartition, from: Int64, batches: [RecordBatch])? {
        while !Task.isCancelled, !hub.isClosed {
            let seen = hub.version(of: partitions)
            for step in partitions.indices {
                let partition = partitions[(turn + step) % partitions.count]
                let from = positions[partition] ?? 0
                let batches: [RecordBatch]
                do {
                    batches = try await read(partition, from)
                } catch {
                    // The next call asks the others first.
                    turn = (turn + step + 1) % partitions.count
                    throw error
                }
                guard let last = batches.last else { continue }
                positions[partition] = last.header.lastOffset + 1
                turn = (turn + step + 1) % partitions.count
                return (partition, from, batches)
            }
            await hub.wait(partitions, since: seen)
        }
        return nil
    }

    /// Goes on at another offset of a partition, behind damage for example.
    package func seek(_ partition: TopicPartition, to offset: Int64) throws(EventLogError) {
        guard positions[partition] != nil else {
            throw EventLogError("unknown-partition", "this follower does not follow \(partition)")
        }
        positions[partition] = offset
    }

    private func read(_ partition: TopicPartition, _ from: Int64) async throws -> [RecordBatch] {
        let page = page
        if let cached = hub.tail.batches(partition, from: from, maxBytes: page) { return cached }
        guard try log.offsets(partition).upperBound > from else { return [] }
        let (log, hub) = (log, hub)
        return try await hub.readers().run {
            // Another follower may have read it while this one waited for a thread.
            if let cached = hub.tail.batches(partition, from: from, maxBytes: page) { return cached }
            let batches = try log.read(partition, from: from, maxBytes: page)
            // Only what stands at the end is worth keeping for others.
            if let last = batches.last, try log.offsets(partition).upperBound - last.header.lastOffset <= 10_000 {
                hub.tail.insert(batches, partition)
            }
            return batches
        }
    }
}

extension EmbeddedLog {
    package func follow(_ positions: [TopicPartition: Int64]) throws(EventLogError) -> LogFollower {
        try LogFollower.make(log: self, hub: hub, positions: positions)
    }
}
