import Base
import CPlatform
import Foundation
import RecordFormat
import Synchronization

/// The embedded durable log: one write-ahead log for all topics in a directory, one writer thread, group commit.
///
/// An append passes three hands. The caller's thread gets ids checked and offsets assigned (under `sequencer`), then
/// encodes and compresses outside any lock; the writer thread chains, writes and syncs whatever frames are ready, in
/// sequence order; readers see only what is durable (under `shared`).
package final class EmbeddedLog: EventLog {
    /// Bytes after which a segment is sealed and the next one begins.
    package static let segmentSize: Int64 = 128 << 20
    /// Bytes that one group commit may carry.
    static let groupSize = 8 << 20

    package let directory: String
    package let recovery: RecoveryReport
    let options: Options
    let sequencer: Monitor<Sequencer>
    let shared: Monitor<Shared>
    private let lock: Mutex<LogFile?>
    private let writer: Mutex<BlockingThread?> = Mutex(nil)

    package struct Options: Sendable {
        package var readOnly = false
        package var segmentSize = EmbeddedLog.segmentSize
        package var wallClock: @Sendable () -> Instant = { Instant.wallClock() }
        package init() {}
    }

    /// Decides offsets, sequences and duplicates; nothing here waits on anything.
    struct Sequencer {
        var layouts: [String: TopicLayout] = [:]
        var topicHashes: [String: UInt64] = [:]
        var partitions: [TopicPartition] = []
        var numbers: [TopicPartition: Int] = [:]
        var nextOffsets: [Int64] = []
        var identifiers = IdentifierTable()
        var nextSequence: UInt64 = 0
        var nextTicket = 0
        var pendingBytes = 0
        var stopped: EventLogError?
        /// Encoded frames by ticket, waiting for their turn.
        var ready: [Int: Ready] = [:]
        var writeTicket = 0
        var closing = false

        mutating func number(of partition: TopicPartition) -> Int {
            if let known = numbers[partition] { return known }
            numbers[partition] = partitions.count
            partitions.append(partition)
            nextOffsets.append(0)
            return partitions.count - 1
        }
    }

    /// A frame that waits for the writer. No frame: the append held only duplicates and waits for their disk.
    struct Ready {
        var frame: [UInt8]
        var firstSequence: UInt64
        var eventCount: Int
        var identifiers: [(UInt64, UInt64, partition: TopicPartition, offset: Int64)]
        var receipt: AppendReceipt
        var cost: Int
        var completion: @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    }

    /// What readers see.
    struct Shared {
        var index = LogIndex()
        var segments: [Segment] = []
        var damaged: [DamagedRange] = []
        var durableSequence: UInt64 = 0
        var lastHash = Digest.zero
        var version: UInt64 = 0
        var syncs: UInt64 = 0
        var bytesWritten: UInt64 = 0
        var stopped: EventLogError?
        var followers: [Int: AsyncStream<UInt64>.Continuation] = [:]
        var nextFollower = 0
    }

    /// One WAL file.
    struct Segment: Sendable {
        let firstSequence: UInt64
        let file: LogFile
        var end: Int64
    }

    package var capabilities: LogCapabilities { [.globalSequence, .idDeduplication, .atomicMultiTopic, .hashChain] }

    init(
        directory: String, options: Options, lock: LogFile?, sequencer: Sequencer, shared: Shared,
        recovery: RecoveryReport, tail: WriterState?
    ) {
        self.directory = directory
        self.options = options
        self.lock = Mutex(lock)
        self.recovery = recovery
        self.sequencer = Monitor(sequencer)
        self.shared = Monitor(shared)
        if let tail {
            let box = Monitor(tail)
            writer.withLock {
                $0 = BlockingThread(name: "log-writer") { [weak self] in self?.writeLoop(box) }
            }
        }
    }

    /// Stops the writer after what is queued, and records where the log ends.
    package func close() {
        sequencer.update { $0.closing = true }
        writer.withLock { thread in
            thread?.join()
            thread = nil
        }
        // Finishing calls back into `shared`, so it happens outside its lock.
        let followers = shared.update { state in
            defer { state.followers.removeAll() }
            return Array(state.followers.values)
        }
        for continuation in followers { continuation.finish() }
        lock.withLock { $0 = nil }
    }

    // MARK: Topics

    package func declare(_ layout: TopicLayout) throws(EventLogError) {
        try sequencer.withLock { state throws(EventLogError) in
            guard TopicName.partitions.contains(layout.partitions), TopicName.isLegal(layout.name) else {
                throw EventLogError(
                    "bad-topic",
                    "the topic '\(layout.name)' needs 1 to 1024 partitions and a name of at most \(Limits.nameLength) letters, digits, '.', '_' or '-'"
                )
            }
            if let known = state.layouts[layout.name], known != layout {
                throw EventLogError(
                    "topic-conflict",
                    "the topic '\(layout.name)' has \(known.partitions) partitions; their number cannot become \(layout.partitions)"
                )
            }
            state.layouts[layout.name] = layout
            var name = layout.name
            state.topicHashes[layout.name] = name.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 7) }
            for partition in 0..<layout.partitions { _ = state.number(of: TopicPartition(layout.name, partition)) }
        }
    }

    package var topics: [TopicLayout] {
        sequencer.withLock { $0.layouts.values.sorted { $0.name < $1.name } }
    }

    // MARK: Following

    package func waitForChange(after version: UInt64, seconds: Double) -> UInt64 {
        shared.wait(seconds: seconds) { $0.version > version || $0.stopped != nil ? $0.version : nil } ?? version
    }

    package func changes() -> AsyncStream<UInt64> {
        AsyncStream(bufferingPolicy: .bufferingNewest(1)) { continuation in
            let number = shared.update { state in
                state.nextFollower += 1
                state.followers[state.nextFollower] = continuation
                continuation.yield(state.version)
                return state.nextFollower
            }
            continuation.onTermination = { [weak self] _ in
                self?.shared.update { _ = $0.followers.removeValue(forKey: number) }
            }
        }
    }

    /// Events, syncs and bytes so far, for metrics.
    package struct Statistics: Sendable {
        package let events: UInt64
        package let syncs: UInt64
        package let bytesWritten: UInt64
        package let pendingBytes: Int
        package let stopped: EventLogError?
        package let damaged: [DamagedRange]
        package let headHash: Digest
    }

    package var statistics: Statistics {
        let pending = sequencer.withLock { $0.pendingBytes }
        return shared.withLock {
            Statistics(
                events: $0.durableSequence, syncs: $0.syncs, bytesWritten: $0.bytesWritten, pendingBytes: pending,
                stopped: $0.stopped, damaged: $0.damaged, headHash: $0.lastHash)
        }
    }
}
