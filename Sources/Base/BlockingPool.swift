/// A few threads for requests that block (files, SQLite, a replay), so that Swift's pool never does. Sendable because its
/// queue is behind a monitor's lock.
package final class BlockingPool: Sendable {
    private struct Queue {
        var jobs: [@Sendable () -> Void] = []
        var running = 0
        var closing = false
    }

    private let queue = Monitor(Queue())
    private let limit: Int
    private let name: String

    /// - Parameter limit: jobs that may wait; more are told to come back.
    package init(name: String, threads: Int, limit: Int) {
        self.name = name
        self.limit = limit
        let queue = queue
        for _ in 0..<threads {
            _ = BlockingThread(name: name) {
                while true {
                    let job: (@Sendable () -> Void)?? = queue.wait { state in
                        if !state.jobs.isEmpty { return .some(state.jobs.removeFirst()) }
                        return state.closing ? .some(nil) : nil
                    }
                    guard case .some(.some(let job)) = job else { return }
                    job()
                }
            }
        }
    }

    deinit { queue.update { $0.closing = true } }

    package func run<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
        try await withCheckedThrowingContinuation { continuation in
            let refused = queue.update { state in
                guard state.jobs.count < limit else { return true }
                state.jobs.append { continuation.resume(with: Result { try body() }) }
                return false
            }
            if refused {
                continuation.resume(
                    throwing: BaseError(
                        "busy", "\(limit) requests wait for the \(name) threads; try again", fault: .world,
                        retriable: true))
            }
        }
    }
}
