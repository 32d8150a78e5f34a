import Base
import EventLog
import Foundation
import Streams

/// What the fold is doing, for anyone who asks.
package struct FoldStatus: Sendable {
    package var now = Instant.distantPast
    package var folded: Int64 = 0
    package var emitted: Int64 = 0
    package var late: Int64 = 0
    package var failures: Int64 = 0
    package var checkpoints: Int64 = 0
    package var drained = false
    /// Events that were read and wait for their turn.
    package var waiting = 0
    /// The log's version at which nothing was left.
    package var drainedVersion: UInt64?
    /// The state is read and the fold runs.
    package var loaded = false
    package var failure: String?
    /// Another node folds under its name.
    package var isFenced = false
    /// Times that it went back to its checkpoint because the log had dropped its transaction.
    package var restarts: Int64 = 0
    package init() {}
}

/// Runs a topology on a thread of its own. Readers from other threads put their question into the mailbox; it is answered
/// between two slices, so every answer is as of one position.
package final class FoldHost: Sendable {
    private struct Mailbox {
        var questions: [@Sendable (TopologyRunner?) -> Void] = []
        var stopping = false
        /// Something came since the log was last looked at.
        var changed = false
    }

    private let mailbox = Monitor(Mailbox())
    private let gate = RunnerGate()
    private let state = Monitor(FoldStatus())
    private let thread: Monitor<BlockingThread?> = Monitor(nil)
    private let checkpointSeconds: Double
    /// Questions that may wait at a time.
    private static let mailboxLimit = 10_000

    package init(checkpointSeconds: Double) { self.checkpointSeconds = checkpointSeconds }

    package var status: FoldStatus { state.withLock { $0 } }

    /// - Parameter make: builds the runner; called on the fold's thread, since a runner lives on one thread.
    package func start(log: any EventLog, make: @escaping @Sendable () throws -> TopologyRunner) {
        thread.withLock {
            $0 = BlockingThread(name: "fold") { [self] in
                do {
                    try run(log, make)
                } catch {
                    state.update {
                        $0.failure = "\(error)"
                        $0.isFenced = (error as? EventLogError)?.code == "producer-fenced"
                    }
                    // Nobody empties the mailbox any more: what waits is told so, and so is whoever comes.
                    let waiting = mailbox.update { box in
                        defer { box.questions = [] }
                        box.stopping = true
                        return box.questions
                    }
                    for question in waiting { question(nil) }
                }
            }
        }
    }

    /// How long an idle fold sleeps when nothing wakes it, in seconds: checkpoints are due by the clock.
    private static let longestSleep = 0.02
    /// The longest pause before a fold begins again at its checkpoint, in seconds.
    private static let longestPause = 5.0
    /// Times in a row that something else may stand where the fold's events belong before it is named.
    private static let foreignLimit = 5

    /// A dropped transaction leaves nothing in the log, but its events are in the state: the fold goes back to its
    /// checkpoint and folds them again. The same when nobody can say what became of it: what is in the log by then is
    /// compared and not written again. It goes on as long as the brokers' troubles do.
    private func run(_ log: any EventLog, _ make: () throws -> TopologyRunner) throws {
        var dropped = 0
        while true {
            state.update { $0.checkpoints = 0 }
            do {
                return try loop(try make(), log)
            } catch let error as StreamsError where error.code == "stopped" {
                return
            } catch let error as EventLogError
                where error.retriable || error.code == "outcome-unknown"
                || (error.code == "foreign-writer" && log.capabilities.contains(.transactions))
            {
                // A checkpoint in between means that it went on.
                dropped = state.withLock { $0.checkpoints } > 0 ? 1 : dropped + 1
                guard error.code != "foreign-writer" || dropped <= FoldHost.foreignLimit,
                    !mailbox.withLock({ $0.stopping })
                else { throw error }
                state.update {
                    $0.restarts += 1
                    $0.drained = false
                }
                _ = mailbox.wait(seconds: min(Double(dropped) * 0.2, FoldHost.longestPause)) {
                    $0.stopping ? true : nil
                }
            }
        }
    }

    private func loop(_ runner: TopologyRunner, _ log: any EventLog) throws {
        defer { runner.end() }
        gate.open(runner)
        defer { gate.open(nil) }
        // Questions and events wake it alike: neither waits for the other's turn.
        let listening = log.listen { [mailbox] in mailbox.update { $0.changed = true } }
        defer { withExtendedLifetime(listening) {} }
        var turn = Turn()
        while true {
            let (questions, stopping) = mailbox.withLock { box in
                defer {
                    box.questions = []
                    box.changed = false
                }
                return (box.questions, box.stopping)
            }
            let worked = try gate.work {
                for question in questions { question(runner) }
                return stopping ? false : try advance(runner, log, &turn)
            }
            if stopping { break }
            guard !worked else { continue }
            _ = mailbox.wait(seconds: turn.isCheckpointing ? 0.001 : FoldHost.longestSleep) { box in
                box.changed || box.stopping || !box.questions.isEmpty ? true : nil
            }
        }
        try gate.work {
            try runner.checkpoint()
            publish(runner, drained: false)
        }
    }

    /// What a fold remembers from one slice to the next.
    private struct Turn {
        var saved = Date()
        var dirty = false
        var started = true
        var isCheckpointing = false
    }

    /// One slice, and what goes with it.
    private func advance(_ runner: TopologyRunner, _ log: any EventLog, _ turn: inout Turn) throws -> Bool {
        let seen = log.waitForChange(after: 0, seconds: 0)
        let worked = try runner.runSlice()
        turn.dirty = turn.dirty || worked
        // Between slices everything is at rest, so a checkpoint may stand anywhere.
        if runner.isCheckpointing {
            try runner.advanceCheckpoint()
        } else if turn.dirty, runner.needsCheckpoint || Date().timeIntervalSince(turn.saved) > checkpointSeconds {
            if try runner.beginCheckpoint() {
                turn.saved = Date()
                turn.dirty = false
            } else if !worked {
                try runner.flush()
            }
        } else if !worked {
            // Also without an event: progress alone moves what is consumed.
            try runner.flush()
        }
        if worked || turn.started { publish(runner, drained: false) }
        turn.started = false
        if !worked {
            publish(runner, drained: runner.isDrained && seen == log.waitForChange(after: 0, seconds: 0), at: seen)
        }
        turn.isCheckpointing = runner.isCheckpointing
        return worked
    }

    private func publish(_ runner: TopologyRunner, drained: Bool, at version: UInt64? = nil) {
        state.update {
            $0.now = runner.now
            $0.folded = runner.folded
            $0.emitted = runner.emittedCount
            $0.late = runner.late
            $0.failures = runner.failures
            $0.checkpoints = runner.checkpoints
            $0.drained = drained
            $0.waiting = runner.waitingCount
            $0.drainedVersion = drained ? version : nil
            $0.loaded = true
        }
    }

    /// The same where it takes no time to speak of: on the spot, when the fold is between two slices just now.
    package func askShortly<R: Sendable>(
        _ body: @escaping @Sendable (TopologyRunner) throws -> R
    ) async throws -> R {
        if let answer = try gate.ask(body) { return answer }
        return try await ask(body)
    }

    /// The same for a thread that must not wait: nil where the fold is at work.
    func askNow<R>(_ body: (TopologyRunner) throws -> R) throws -> R? { try gate.ask(body) }

    /// Asks something of the fold between two slices.
    package func ask<R: Sendable>(_ body: @escaping @Sendable (TopologyRunner) throws -> R) async throws -> R {
        try await withCheckedThrowingContinuation { continuation in post(body) { continuation.resume(with: $0) } }
    }

    /// The same for a thread that may block: it needs none of Swift's, which may all be blocked like this one.
    package func askBlocking<R: Sendable>(_ body: @escaping @Sendable (TopologyRunner) throws -> R) throws -> R {
        let answer = Monitor<Result<R, any Error>?>(nil)
        post(body) { given in answer.update { $0 = given } }
        guard let given = answer.wait(until: { $0 }) else {
            throw NodeError("fold-stopped", "the fold did not answer", fault: .headrace)
        }
        return try given.get()
    }

    /// Puts a question into the mailbox; it is answered in any case, from whatever thread.
    private func post<R: Sendable>(
        _ body: @escaping @Sendable (TopologyRunner) throws -> R,
        _ answer: @escaping @Sendable (Result<R, any Error>) -> Void
    ) {
        let isRefused = mailbox.update { box in
            guard box.questions.count < Self.mailboxLimit, !box.stopping else { return true }
            box.questions.append { runner in
                answer(
                    Result {
                        guard let runner else {
                            throw NodeError(
                                "fold-stopped", "the fold has stopped; see the node's status", fault: .world)
                        }
                        let answer = Result { try body(runner) }
                        // What is missing is not absent, whatever was made of it.
                        try runner.requireState()
                        return try answer.get()
                    })
            }
            return false
        }
        guard isRefused else { return }
        if let failure = state.withLock({ $0.failure }) {
            answer(.failure(NodeError("fold-stopped", "the fold has stopped: \(failure)", fault: .world)))
            return
        }
        answer(
            .failure(
                NodeError(
                    "busy", "the fold has \(Self.mailboxLimit) questions waiting or is stopping; try again",
                    fault: .world, retriable: true)))
    }

    var isStopping: Bool { mailbox.withLock { $0.stopping } }

    /// Lets the fold end; `stop` waits for it.
    func askToStop() { mailbox.update { $0.stopping = true } }

    package func stop() {
        askToStop()
        thread.withLock {
            $0?.join()
            $0 = nil
        }
    }
}
