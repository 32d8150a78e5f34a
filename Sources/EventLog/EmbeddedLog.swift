import Base
import Dispatch
import RecordFormat
import Synchronization

/// The embedded durable log: one write-ahead log for all topics in a directory, one writer thread, group commit; sealed
/// WAL segments move into partition files in the background.
///
/// An append passes three hands. The caller's thread gets ids checked and offsets assigned (under `sequencer`), then
/// encodes and compresses outside any lock; the writer thread chains, writes and syncs whatever frames are ready, in
/// sequence order; readers see only what is durable (under `shared`). Everything that takes files away or puts others in
/// their place happens in the maintenance, one step at a time (under `maintenance`).
package final class EmbeddedLog: EventLog {
    /// Bytes after which a WAL segment is sealed and the next one begins.
    package static let segmentSize: Int64 = 128 << 20
    /// Bytes after which a partition's next file begins.
    package static let partitionFileSize: Int64 = 64 << 20
    /// Bytes that one group commit may carry.
    static let groupSize = 8 << 20

    package let volume: any LogVolume
    package let recovery: RecoveryReport
    let options: Options
    let sequencer: Monitor<Sequencer>
    let shared: Monitor<Shared>
    let writer: Monitor<WriterState?>
    let maintenance: Monitor<Maintenance>
    /// Held through every change of the manifest and its files.
    let upkeep = Monitor(())
    let cache: FileCache
    let hub: FollowerHub
    let lock: Mutex<(any Sendable)?>
    private let registrations = Monitor<[String: ProducerIdentity]>([:])
    private let threads = Mutex<[BlockingThread]>([])

    package struct Options: Sendable {
        package var readOnly = false
        package var segmentSize = EmbeddedLog.segmentSize
        package var partitionFileSize = EmbeddedLog.partitionFileSize
        package var wallClock: @Sendable () -> Instant = { Instant.wallClock() }
        /// Milliseconds on a clock that only goes forward.
        package var uptime: @Sendable () -> Int64 = { Int64(DispatchTime.now().uptimeNanoseconds / 1_000_000) }
        /// What batches become when they move out of the WAL.
        package var rewriting = RewriteSizes()
        /// Keys that one compaction holds in memory (about 100 bytes each).
        package var compactionKeys = CompactionDecision.keyLimit
        /// False: nothing happens by itself; `commitReady` and `maintain` are called by whoever drives the log.
        package var hasThreads = true
        /// How long a relaxed append may wait for the disk, in seconds.
        package var relaxedDelay = 0.05
        /// Milliseconds after which a WAL segment is sealed although it is not full.
        package var segmentAge: Int64 = 3_600_000
        /// Seconds between two looks at retention and compaction.
        package var maintenanceInterval = 30.0
        /// Sealed WAL segments that may wait to be moved; with more of them the writer waits for the upkeep.
        package var waitingSegments = 16
        package init() {}
    }

    /// A frame that waits for the writer. No frame: the append held only duplicates and waits for their disk.
    struct Ready: Sendable {
        var frame: [UInt8]
        /// The frame's batches; their places are counted from its first byte.
        let batches: [(partition: TopicPartition, entry: BatchEntry, producer: ProducerStamp)]
        let firstSequence: UInt64
        let eventCount: Int
        let identifiers: [(hash: (UInt64, UInt64), partition: TopicPartition, offset: Int64)]
        let durability: Durability
        let cost: Int
        let completion: @Sendable (EventLogError?) -> Void
    }

    /// One WAL file.
    struct Segment: Sendable {
        let firstSequence: UInt64
        let file: any LogFile
        var end: Int64

        static func path(_ firstSequence: UInt64) -> String { Manifest.digits(firstSequence) + ".wal" }
        static func indexPath(_ firstSequence: UInt64) -> String { Manifest.digits(firstSequence) + ".index" }
        static func identifierPath(_ firstSequence: UInt64) -> String { Manifest.digits(firstSequence) + ".ids" }
        var path: String { Segment.path(firstSequence) }
    }

    /// What readers see.
    struct Shared: Sendable {
        var partitions = PartitionTable()
        /// Oldest first; the last is being written.
        var segments: [Segment] = []
        var damaged: [DamagedRange] = []
        var durableSequence: UInt64 = 0
        var lastHash = Digest.zero
        var version: UInt64 = 0
        var syncs: UInt64 = 0
        var bytesWritten: UInt64 = 0
        var stopped: EventLogError?
    }

    package var capabilities: LogCapabilities {
        [
            .globalSequence, .idDeduplication, .atomicMultiTopic, .hashChain, .expectedOffset, .idempotentProducers,
            .pins, .relaxedDurability, .trim, .denseOffsets,
            .stopsAtFailure,
        ]
    }

    package var durability: Durability { .synced }
    package var eventCount: UInt64 { statistics.events }
    package var stopped: EventLogError? { shared.withLock { $0.stopped } }

    /// One append is one transaction here, and whoever consumes keeps its offsets itself.
    package func transactionalWriter(named name: String) throws(EventLogError) -> any TransactionalWriter {
        throw EventLogError(
            "unsupported",
            "the embedded log has no open transactions; an append over several topics is atomic by itself"
        )
    }

    init(_ opened: Opening, volume: any LogVolume, options: Options, lock: (any Sendable)?, tail: WriterState?) {
        self.volume = volume
        self.options = options
        self.lock = Mutex(lock)
        recovery = opened.report
        sequencer = Monitor(opened.sequencer)
        shared = Monitor(opened.shared)
        writer = Monitor(tail)
        maintenance = Monitor(Maintenance(manifest: opened.manifest, sealed: opened.sealed))
        cache = opened.cache
        hub = FollowerHub()
        guard options.hasThreads, tail != nil else { return }
        threads.withLock {
            $0 = [
                BlockingThread(name: "log-writer") { [weak self] in self?.writeLoop() },
                BlockingThread(name: "log-upkeep") { [weak self] in self?.maintenanceLoop() },
            ]
        }
    }

    /// Stops the writer after what is queued, and records where the log ends.
    package func close() {
        sequencer.update { $0.closing = true }
        maintenance.update { $0.closing = true }
        if options.hasThreads {
            let running = threads.withLock { list in
                defer { list = [] }
                return list
            }
            for thread in running { thread.join() }
        } else {
            while commitReady() {}
        }
        // Upkeep that somebody asked for by hand comes to its end before the directory is another's.
        upkeep.withLock { _ in
            writer.withLock { state in
                if var last = state { finish(&last) }
                state = nil
            }
            hub.close()
            lock.withLock { $0 = nil }
        }
    }

    // MARK: Topics

    package func declare(_ layout: TopicLayout) throws(EventLogError) {
        try sequencer.withLock { state throws(EventLogError) in try state.declare(layout) }
    }

    package var topics: [TopicLayout] {
        sequencer.withLock { $0.layouts.values.sorted { $0.name < $1.name } }
    }

    // MARK: Producers

    /// Registrations of producers: every action is an event. The id of a producer is the offset of its first one.
    package static let producersTopic = TopicLayout(name: "headrace.producers", partitions: 1)

    package func registerProducer(named name: String?) throws(EventLogError) -> ProducerIdentity {
        guard (name ?? "x").utf8.count <= Limits.nameLength, name != "" else {
            throw EventLogError("bad-producer", "a producer's name has 1 to \(Limits.nameLength) bytes")
        }
        try declare(EmbeddedLog.producersTopic)
        return try registrations.withLock { names throws(EventLogError) in
            let partition = TopicPartition(EmbeddedLog.producersTopic.name, 0)
            let known = name.flatMap { names[$0] }
            if let known, known.epoch == Int16.max {
                throw EventLogError(
                    "producer-exhausted",
                    "the producer '\(name ?? "")' was registered \(Int16.max) times; take another name")
            }
            let end = sequencer.withLock { $0.nextOffsets[$0.number(of: partition)] }
            let registration = ProducerRegistration(
                name: name, id: known?.id ?? end, epoch: known.map { $0.epoch + 1 } ?? 0)
            let box = Monitor<Result<AppendReceipt, EventLogError>?>(nil)
            append(registration.append(at: end, time: options.wallClock())) { result in box.update { $0 = result } }
            if !options.hasThreads { while commitReady() {} }
            _ = try box.wait(until: { $0 })?.get()
            sequencer.update { $0.epochs[registration.id] = registration.epoch }
            if let name { names[name] = ProducerIdentity(id: registration.id, epoch: registration.epoch) }
            return ProducerIdentity(id: registration.id, epoch: registration.epoch)
        }
    }

    /// Learns from the log which producers were registered.
    func recallProducers() throws(EventLogError) {
        let known = try ProducerRegistration.all(self)
        guard !known.isEmpty else { return }
        try declare(EmbeddedLog.producersTopic)
        registrations.withLock { names in
            for registration in known {
                guard let name = registration.name, registration.epoch >= names[name]?.epoch ?? 0 else { continue }
                names[name] = ProducerIdentity(id: registration.id, epoch: registration.epoch)
            }
        }
        sequencer.withLock { state in
            for registration in known {
                state.epochs[registration.id] = max(state.epochs[registration.id] ?? 0, registration.epoch)
            }
        }
    }

    // MARK: Following

    package func waitForChange(after version: UInt64, seconds: Double) -> UInt64 {
        shared.wait(seconds: seconds) { $0.version > version ? $0.version : nil } ?? version
    }

    package func listen(_ body: @escaping @Sendable () -> Void) -> LogListening { hub.listen(body) }

    package func changes() -> AsyncStream<UInt64> { hub.changes { shared.withLock { $0.version } } }
}

/// What a log has done so far, for metrics.
package struct LogStatistics: Sendable {
    package let events: UInt64
    package let syncs: UInt64
    /// Bytes of frames written to the WAL.
    package let bytesWritten: UInt64
    /// WAL bytes ever moved into partition files, and bytes that moving and compaction wrote.
    package let rewrittenBytes: UInt64
    package let maintenanceBytes: UInt64
    package let pendingBytes: Int
    package let stopped: EventLogError?
    package let damaged: [DamagedRange]
    package let headHash: Digest
    /// Sealed WAL segments that wait to be moved.
    package let waitingSegments: Int
    package let lostIdentifiers: [LostIdentifiers]
    /// Damaged places that reads met.
    package let rotten: [String]
    /// Why the last maintenance failed; nil when it did not.
    package let maintenanceFailure: EventLogError?

    /// Bytes written to disk for each byte that arrived, over what was rewritten.
    package var writeAmplification: Double {
        rewrittenBytes == 0 ? 1 : 1 + Double(maintenanceBytes) / Double(rewrittenBytes)
    }
}

extension EmbeddedLog {
    package var statistics: LogStatistics {
        let pending = sequencer.withLock { $0.pendingBytes }
        let (manifest, failure, lost, rotten) = maintenance.withLock { state in
            // What opening could not read may have been had since.
            let opening = recovery.lostIdentifiers.filter { known in
                !state.regainedIdentifiers.contains(known.file)
                    && !state.lostIdentifiers.contains { $0.file == known.file }
            }
            return (state.manifest, state.failure, opening + state.lostIdentifiers, state.rotten)
        }
        return shared.withLock {
            LogStatistics(
                events: $0.durableSequence, syncs: $0.syncs, bytesWritten: $0.bytesWritten,
                rewrittenBytes: manifest.rewrittenBytes, maintenanceBytes: manifest.maintenanceBytes,
                pendingBytes: pending, stopped: $0.stopped, damaged: $0.damaged, headHash: $0.lastHash,
                waitingSegments: max(0, $0.segments.count - 1),
                lostIdentifiers: lost, rotten: rotten, maintenanceFailure: failure)
        }
    }
}
