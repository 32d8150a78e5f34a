import Base
import EventLog

/// A checkpoint between its beginning and its end: what it will write, as it was at one moment between two events.
final class Checkpoint {
    let inputs: [StateDatabase.InputPosition]
    let meta: [String: String]
    /// What was taken of each store so far.
    var deltas: [StateDelta] = []
    /// The store whose snapshot is being taken.
    var store = 0
    /// Set by the thread that writes it.
    let outcome = Monitor<Result<[String: [StateRun]], any Error>?>(nil)
    var writer: BlockingThread?
    /// Set by it when it has nothing more to do.
    let isAtRest = Monitor(false)

    init(inputs: [StateDatabase.InputPosition], meta: [String: String]) {
        self.inputs = inputs
        self.meta = meta
    }
}

/// A database is used by the thread that writes a checkpoint, and by the fold when there is none: there is no lock.
private struct HandedDatabase: @unchecked Sendable {
    let database: StateDatabase
    let changelog: ChangelogWriter?

    /// What others must know before it counts here comes first.
    func write(
        _ deltas: [StateDelta], _ inputs: [StateDatabase.InputPosition], _ meta: [String: String]
    ) throws -> [String: [StateRun]] {
        guard let changelog else { return try database.checkpoint(deltas, inputs: inputs, meta: meta) }
        let next = try changelog.write(deltas, inputs: inputs, meta: meta)
        return try database.checkpoint(
            deltas, inputs: inputs, meta: meta.merging([StateDatabase.changelog: String(next)]) { $1 })
    }
}

extension TopologyRunner {
    /// Keys taken between two slices while a checkpoint is under way: some milliseconds.
    static let snapshotKeys = 12288
    /// Of fewer changed keys no checkpoint is begun before it is due.
    static let earlyKeys = 1 << 16
    /// Bytes by which the memory of a small state may be passed while a checkpoint is under way.
    static let memorySlack = 64 << 20

    package var isCheckpointing: Bool { underWay != nil }
    /// Everything that it writes was taken, and a thread is bringing it to the disk.
    package var isWritingCheckpoint: Bool { underWay?.writer != nil }

    /// Makes what was emitted durable, then commits state, timers, holds and positions in one transaction: whatever a crash
    /// leaves, folding on from the positions repeats the same events under the same ids. Returns when it is done.
    package func checkpoint() throws {
        while isCheckpointing { try advanceCheckpoint(waits: true) }
        lastWriter?.join()
        try beginCheckpoint()
        while isCheckpointing { try advanceCheckpoint(waits: true) }
        lastWriter?.join()
    }

    /// Whether the checkpoint before was brought from the database's journal to its place; until then none begins.
    private var isWriterAtRest: Bool { lastAtRest?.withLock { $0 } ?? true }

    /// Begins a checkpoint of how things are now, unless one is under way. Events may be folded on; `advanceCheckpoint` between slices brings it to its
    /// end. What changes meanwhile is kept as it was, so that the fold waits for no more than a piece of it.
    /// - Returns: whether one was begun: none while one is under way, or the one before is not at rest.
    @discardableResult
    package func beginCheckpoint() throws -> Bool {
        guard !isCheckpointing, isWriterAtRest else { return false }
        if let failure = database.reader?.failure { throw failure }
        try sink.flush(consumed)
        let positions = inputs.map { input in
            let source: Int =
                switch input.source {
                case .unstarted: 0
                case .active: 1
                case .idle: 2
                case .finished: 3
                }
            return StateDatabase.InputPosition(
                partition: input.partition, next: input.next, source: source,
                through: input.completeThrough.milliseconds)
        }
        var meta = [
            "cut": String(lastCut), "now": String(context.now.milliseconds), "count": String(folded),
            "emitted": String(emittedCount), "late": String(lateEvents), "failures": String(failures),
        ]
        if let identity = topology.identity { meta[StateDatabase.identity] = identity.hex }
        for input in inputs where input.round > 0 { meta["round/\(input.partition)"] = String(input.round) }
        for input in inputs {
            if let upstream = input.upstream { meta["follows/\(input.partition)"] = String(upstream.next) }
        }
        for (partition, next) in context.positions { meta["folded/\(partition)"] = String(next) }
        for (topic, next) in context.emittedOffsets { meta[Self.emittedMark + topic] = String(next) }
        meta[Self.firedMark] = lastFired?.name ?? ""
        if !topology.takeovers.isEmpty, !isSilent { meta[Self.takenMark] = "yes" }
        for (index, entry) in waiting.released {
            meta[WaitingEvents.releasedMark + "\(inputs[index].partition)"] = entry.name
        }
        if !topology.sorted.isEmpty { meta[WaitingEvents.inputsMark] = waitingInputs }
        if let behind { meta[WaitingEvents.behindMark] = behind.name }
        context.timers.checkpointBegins()
        waiting.checkpointBegins()
        for store in stores {
            store.beginSnapshot()
            meta[StateDatabase.countMark + store.name] = String(store.count)
        }
        underWay = Checkpoint(inputs: positions, meta: meta)
        return true
    }

    /// Takes the next piece of the checkpoint under way, or looks whether it is written.
    /// - Parameter waits: does not come back before a step was made.
    package func advanceCheckpoint(waits: Bool = false) throws {
        guard let checkpoint = underWay else { return }
        if checkpoint.store < stores.count {
            var room = Self.snapshotKeys
            while room > 0, checkpoint.store < stores.count {
                if checkpoint.deltas.count == checkpoint.store {
                    checkpoint.deltas.append(StateDelta(store: stores[checkpoint.store].name))
                }
                let before = checkpoint.deltas[checkpoint.store].count
                let isTaken = stores[checkpoint.store].takeSnapshot(
                    limit: room, into: &checkpoint.deltas[checkpoint.store])
                room = isTaken ? room - (checkpoint.deltas[checkpoint.store].count - before) : 0
                if isTaken { checkpoint.store += 1 }
            }
            return
        }
        if checkpoint.writer == nil {
            let (deltas, inputs, meta) = (checkpoint.deltas, checkpoint.inputs, checkpoint.meta)
            checkpoint.deltas = []
            let handed = HandedDatabase(database: database, changelog: changelog)
            checkpoint.writer = BlockingThread(name: "checkpoint") {
                [outcome = checkpoint.outcome, isAtRest = checkpoint.isAtRest] in
                defer { isAtRest.update { $0 = true } }
                do {
                    let runs = try handed.write(deltas, inputs, meta)
                    outcome.update { $0 = .success(runs) }
                    // The fold goes on: what was committed survives its end, and this the machine's.
                    handed.database.flush()
                } catch {
                    outcome.update { $0 = .failure(error) }
                }
            }
        }
        let outcome = waits ? checkpoint.outcome.wait { $0 } : checkpoint.outcome.withLock { $0 }
        guard let outcome else { return }
        lastWriter = checkpoint.writer
        lastAtRest = checkpoint.isAtRest
        underWay = nil
        let runs = try outcome.get()
        for store in stores {
            if let changed = runs[store.name] { store.snapshotStored(changed) }
        }
        context.timers.shrink()
        waiting.shrink()
        checkpoints += 1
    }

    /// About what the state takes in memory, in bytes.
    package var residentBytes: Int { stores.reduce(0) { $0 + $1.residentBytes } }

    /// Lets go, between two slices, what was not used lately and is on the disk, where memory is spent.
    func keepWithinMemory() throws {
        if isCheckpointing {
            // What changes faster than it can be written waits for it.
            let limit = max(database.memory * 2, database.memory + Self.memorySlack)
            while isCheckpointing, residentBytes > limit { try advanceCheckpoint(waits: true) }
            return
        }
        var room = Self.snapshotKeys
        for store in stores where room > 0 { store.forget(&room) }
        needsCheckpoint = false
        guard database.reader != nil, residentBytes > database.memory else { return }
        for store in stores.sorted(by: { $0.residentBytes > $1.residentBytes }) where room > 0 { store.evict(&room) }
        // What no checkpoint has taken cannot go.
        let residents = stores.map(\.residents)
        let changed = residents.reduce(0) { $0 + $1.changed }
        needsCheckpoint = changed > Self.earlyKeys && changed * 2 > residents.reduce(0) { $0 + $1.all }
    }

    /// Waits for the threads that write for this fold: nobody may begin where it began while they do.
    package func end() {
        underWay?.writer?.join()
        lastWriter?.join()
    }

    /// Before the first event: whether digests are kept up, or computed when somebody asks.
    func beginDigests() {
        for store in stores where store !== waiting.store {
            store.keepsDigest = recordsDigests
            store.prepareDigest()
        }
    }
}
