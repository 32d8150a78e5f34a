import Base
import EventLog

/// A checkpoint between its beginning and its end: what it will write, as it was at one moment between two events.
final class Checkpoint {
    let inputs: [StateDatabase.InputPosition]
    let meta: [String: String]
    var changes: [StateChange] = []
    /// The store whose snapshot is being taken.
    var store = 0
    /// Set by the thread that writes it.
    let outcome = Monitor<Result<Void, StreamsError>?>(nil)
    var writer: BlockingThread?

    init(inputs: [StateDatabase.InputPosition], meta: [String: String]) {
        self.inputs = inputs
        self.meta = meta
    }
}

extension TopologyRunner {
    /// Keys taken between two slices while a checkpoint is under way: some milliseconds.
    static let snapshotKeys = 4096

    package var isCheckpointing: Bool { underWay != nil }
    /// Everything that it writes was taken, and a thread is bringing it to the disk.
    package var isWritingCheckpoint: Bool { underWay?.writer != nil }

    /// Makes what was emitted durable, then commits state, timers, holds and positions in one transaction: whatever a crash
    /// leaves, folding on from the positions repeats the same events under the same ids. Returns when it is done.
    package func checkpoint() throws {
        while isCheckpointing { try advanceCheckpoint(waits: true) }
        try beginCheckpoint()
        while isCheckpointing { try advanceCheckpoint(waits: true) }
    }

    /// Begins a checkpoint of how things are now. Events may be folded on; `advanceCheckpoint` between slices brings it to its
    /// end. What changes meanwhile is kept as it was, so that the fold waits for no more than a piece of it.
    package func beginCheckpoint() throws {
        guard !isCheckpointing else { return }
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
        for (topic, next) in context.emittedOffsets { meta["emitted/\(topic)"] = String(next) }
        for store in stores { store.beginSnapshot() }
        underWay = Checkpoint(inputs: positions, meta: meta)
    }

    /// Takes the next piece of the checkpoint under way, or looks whether it is written.
    /// - Parameter waits: does not come back before a step was made.
    package func advanceCheckpoint(waits: Bool = false) throws {
        guard let checkpoint = underWay else { return }
        if checkpoint.store < stores.count {
            var room = Self.snapshotKeys
            while room > 0, checkpoint.store < stores.count {
                let before = checkpoint.changes.count
                if stores[checkpoint.store].takeSnapshot(limit: room, into: &checkpoint.changes) {
                    checkpoint.store += 1
                    room -= checkpoint.changes.count - before
                } else {
                    room = 0
                }
            }
            return
        }
        if checkpoint.writer == nil {
            let (changes, inputs, meta) = (checkpoint.changes, checkpoint.inputs, checkpoint.meta)
            checkpoint.changes = []
            checkpoint.writer = BlockingThread(name: "checkpoint") { [database, outcome = checkpoint.outcome] in
                do throws(StreamsError) {
                    try database.checkpoint(changes, inputs: inputs, meta: meta)
                    outcome.update { $0 = .success(()) }
                } catch {
                    outcome.update { $0 = .failure(error) }
                }
            }
        }
        let outcome = waits ? checkpoint.outcome.wait { $0 } : checkpoint.outcome.withLock { $0 }
        guard let outcome else { return }
        checkpoint.writer?.join()
        underWay = nil
        try outcome.get()
        checkpoints += 1
    }
}
