import Base
import RecordFormat

extension EmbeddedLog {
    package func append(
        _ append: LogAppend, completion: @escaping @Sendable (Result<AppendReceipt, EventLogError>) -> Void
    ) {
        let plan: Sequencer.Plan
        let now = options.wallClock().milliseconds
        do {
            try check(append)
            plan = try sequencer.withLock { state throws(EventLogError) in try state.decide(append, now: now) }
        } catch {
            if error.code == "ids-damaged" { wakeMaintenance() }
            completion(.failure(error))
            return
        }
        var frame: [UInt8] = []
        var batches: [LogFrame.NewBatch] = []
        if !plan.batches.isEmpty {
            batches = plan.batches.map { batch in
                var builder = RecordBatchBuilder()
                for index in batch.events { builder.append(append.events[index].event) }
                var encoded = builder.finish()
                encoded.stamp(baseOffset: batch.baseOffset)
                return LogFrame.NewBatch(
                    partition: batch.partition, baseOffset: batch.baseOffset, batch: encoded,
                    isDeduplicated: batch.isDeduplicated)
            }
            frame = LogFrame.encode(
                firstSequence: plan.firstSequence, principal: append.principal, keyID: "", batches: batches,
                interleave: plan.interleave)
        }
        let receipt = AppendReceipt(events: plan.receipts, durability: append.durability)
        hand(
            Ready(
                frame: frame, batches: LogFrame.entries(of: batches, in: frame), firstSequence: plan.firstSequence,
                eventCount: plan.batches.reduce(0) { $0 + $1.events.count }, identifiers: plan.identifiers,
                durability: append.durability, cost: plan.cost,
                completion: { error in completion(error.map { .failure($0) } ?? .success(receipt)) }),
            ticket: plan.ticket)
    }

    package func append(
        _ append: BatchAppend, completion: @escaping @Sendable (Result<BatchReceipt, EventLogError>) -> Void
    ) {
        let encoded = append.encoded()
        let plan: Sequencer.BatchPlan
        let now = options.wallClock().milliseconds
        do {
            try check(append, encoded)
            plan = try sequencer.withLock { state throws(EventLogError) in try state.decide(append, encoded, now: now) }
        } catch {
            completion(.failure(error))
            return
        }
        let partition = append.partition
        let receipt = BatchReceipt(
            position: Position(
                topic: partition.topic, partition: partition.partition, offset: plan.baseOffset,
                sequence: plan.isDuplicate ? nil : plan.firstSequence),
            count: encoded.count, duplicate: plan.isDuplicate, durability: append.durability)
        var frame: [UInt8] = []
        var batches: [LogFrame.NewBatch] = []
        if !plan.isDuplicate {
            var batch = encoded
            batch.stamp(baseOffset: plan.baseOffset)
            batches = [
                LogFrame.NewBatch(
                    partition: partition, baseOffset: plan.baseOffset, batch: batch, isDeduplicated: false)
            ]
            frame = LogFrame.encode(
                firstSequence: plan.firstSequence, principal: append.principal, keyID: "",
                batches: batches,
                interleave: [(0, encoded.count)])
        }
        hand(
            Ready(
                frame: frame, batches: LogFrame.entries(of: batches, in: frame), firstSequence: plan.firstSequence,
                eventCount: plan.isDuplicate ? 0 : encoded.count,
                identifiers: [], durability: append.durability, cost: plan.cost,
                completion: { error in completion(error.map { .failure($0) } ?? .success(receipt)) }),
            ticket: plan.ticket)
    }

    private func hand(_ ready: Ready, ticket: Int) {
        // The writer may have stopped since the offsets were assigned; then nobody would take the frame any more.
        let stopped: EventLogError? = sequencer.update { state in
            if let stopped = state.stopped { return stopped }
            state.ready[ticket] = ready
            return nil
        }
        if let stopped { ready.completion(stopped) }
    }

    private func checkWritable() throws(EventLogError) {
        guard !options.readOnly else {
            throw EventLogError("read-only", "the log in \(volume.path) was opened for reading only")
        }
    }

    private func check(_ append: BatchAppend, _ encoded: EncodedBatch) throws(EventLogError) {
        try checkWritable()
        guard encoded.count > 0, encoded.baseOffset == 0,
            encoded.bytes.count <= LogFrame.maximumSize / 2,
            encoded.recordBytes <= Limits.batchBytes, append.principal.utf8.count <= Limits.nameLength
        else {
            throw EventLogError(
                "append-too-large",
                "one batch takes 1 record or more, at most \(LogFrame.maximumSize / 2) bytes (\(Limits.batchBytes) before compression) and a principal of at most \(Limits.nameLength) bytes; this one has \(encoded.count) records and \(encoded.bytes.count) bytes"
            )
        }
    }

    private func check(_ append: LogAppend) throws(EventLogError) {
        try checkWritable()
        try append.check(maximumSize: LogFrame.maximumSize / 2)
    }
}
