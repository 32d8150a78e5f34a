import Base
import EventLog
import RecordFormat

extension LogSimulation {
    // MARK: Restarting

    mutating func start() throws {
        // The power may go while the log recovers, too.
        for _ in 0..<20 {
            do {
                let log = try EmbeddedLog.open(volume, options: options)
                for layout in LogSimulation.topics { try log.declare(layout) }
                self.log = log
                return
            } catch {
                guard volume.isDown else { throw failure("the log does not open: \(error)") }
                volume.crash()
            }
        }
        throw failure("the log does not open")
    }

    mutating func crash() throws {
        say("the power is gone")
        outcome.crashes += 1
        if let log { model.settle(below: log.statistics.events) }
        log = nil
        model.losePower()
        volume.crash()
        try restart(afterCrash: nil)
    }

    /// - Parameter afterCrash: true: the process dies but the power stays; nil: the power went.
    mutating func restart(afterCrash: Bool?) throws {
        volume.set(.none)
        if let log, afterCrash != nil {
            outcome.rewritten += log.statistics.rewrittenBytes
            if afterCrash == false {
                log.close()
                try collect()
            }
        }
        log = nil
        if volume.isDown {
            volume.crash()
            model.losePower()
        }
        // What was never answered may have happened.
        inbox = Monitor([])
        model.ambiguous += offered.keys.sorted().compactMap { offered[$0]?.append }
        offered = [:]
        say("restart")
        outcome.restarts += 1
        if Int.random(in: 0..<5, using: &random) == 0 { volume.crash(within: 40) }
        try start()
        volume.crash(within: nil)
        if volume.isDown {
            volume.crash()
            try start()
        }
        model.losePower()
        try check(verifies: Int.random(in: 0..<4, using: &random) == 0)
        if seed >= LogSimulation.openingsFailFrom, Bool.random(using: &random) {
            if Bool.random(using: &random) { self.log?.close() }
            self.log = nil
            try startBadly()
            try start()
            try check(verifies: true)
        }
        try resumeProducer()
    }

    /// A life on a disk that gives errors while the log is opened and looked after. It may refuse to open; it may say that it
    /// cannot read something. But whatever it does, the next life finds everything.
    private mutating func startBadly() throws {
        var faults = SimulatedVolume.Faults.none
        faults.read = [5, 30, 200][Int.random(in: 0..<3, using: &random)]
        volume.crash(within: nil)
        say("opens with failing reads, \(faults.read) of 1000")
        volume.set(faults)
        do {
            let log = try EmbeddedLog.open(volume, options: options)
            for layout in LogSimulation.topics { try log.declare(layout) }
            for _ in 0..<Int.random(in: 0..<3, using: &random) {
                do { try log.maintain() } catch { try tolerate(error) }
            }
            if Bool.random(using: &random) { log.close() }
        } catch let error as EventLogError {
            guard ["read-failed", "manifest-damaged"].contains(error.code) else {
                throw failure("an opening whose reads failed says: \(error)")
            }
        }
        volume.set(.none)
    }

    mutating func resumeProducer() throws {
        guard let current = producer, let log else { return }
        // Batches without an answer were sent or were not; a real client would ask by sending them again. A new epoch
        // begins at 0 and fences the old one.
        let identity: ProducerIdentity
        do {
            identity = try log.registerProducer(named: "p\(seed)")
        } catch {
            throw failure("a producer cannot register again: \(error)")
        }
        guard identity.id == current.identity.id, identity.epoch > current.identity.epoch else {
            throw failure("a producer registered as \(identity) after \(current.identity)")
        }
        var builder = RecordBatchBuilder()
        [UInt8]("0 ".utf8).withUnsafeBytes { builder.append(key: nil, value: $0, time: 5) }
        let old = ProducerStamp(id: current.identity.id, epoch: current.identity.epoch, sequence: current.next)
        let box = Monitor<Result<BatchReceipt, EventLogError>?>(nil)
        log.append(
            BatchAppend(principal: "p", partition: TopicPartition("plain", 0), batch: builder.finish(producer: old))
        ) { result in box.withLock { $0 = result } }
        guard case .failure(let error)? = box.withLock({ $0 }), error.code == "producer-fenced" else {
            throw failure("an old epoch was not fenced")
        }
        producer = (identity, 0, [])
    }
}
