import Base
import Foundation

/// Runs the tasks of a topology beside each other, each on a thread of its own, until nothing is left to fold.
package enum TopologyTasks {
    /// A runner is used by one thread at a time, so there is no lock: it is handed to its own, and `run` joins that before
    /// it returns.
    private struct Handed: @unchecked Sendable {
        let runner: TopologyRunner
    }

    /// - Parameter checkpointSeconds: between two checkpoints of a task; nil makes one at the end alone.
    package static func run(_ runners: [TopologyRunner], checkpointSeconds: Double?) throws {
        let failure = Monitor<(any Error)?>(nil)
        let threads = runners.map { runner in
            let handed = Handed(runner: runner)
            return BlockingThread(name: "task-\(runner.task ?? 0)") {
                do {
                    try fold(handed.runner, checkpointSeconds) { failure.withLock { $0 != nil } }
                } catch {
                    failure.update { $0 = $0 ?? error }
                }
            }
        }
        for thread in threads { thread.join() }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }

    private static func fold(
        _ runner: TopologyRunner, _ checkpointSeconds: Double?, isStopped: () -> Bool
    ) throws {
        defer { runner.end() }
        var saved = DispatchTime.now().uptimeNanoseconds
        while !isStopped(), try runner.runSlice() {
            if runner.isCheckpointing {
                try runner.advanceCheckpoint()
                continue
            }
            guard let checkpointSeconds else { continue }
            let now = DispatchTime.now().uptimeNanoseconds
            guard runner.needsCheckpoint || Double(now - saved) > checkpointSeconds * 1e9 else { continue }
            if try runner.beginCheckpoint() { saved = now }
        }
        try runner.checkpoint()
    }
}
