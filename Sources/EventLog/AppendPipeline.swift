import Base

/// Several appends of one writer under way at a time, in order; the first failure ends it. For threads of our own.
package final class AppendPipeline: Sendable {
    /// Appends under way; one more waits for the first to be on disk.
    package static let limit = 4

    private struct State {
        var underWay = 0
        var failure: EventLogError?
    }

    private let log: any EventLog
    private let state = Monitor(State())
    private let depth: Int

    package init(log: any EventLog) {
        self.log = log
        // What follows a failed append must not be there before it, so where the next may succeed one goes at a time.
        depth = log.capabilities.contains(.stopsAtFailure) ? AppendPipeline.limit : 1
    }

    private enum Outcome {
        case go
        case failed(EventLogError)
    }

    private func wait(until ready: (inout State) -> Bool) throws(EventLogError) {
        let outcome: Outcome? = state.wait { state in
            if let failure = state.failure { return .failed(failure) }
            return ready(&state) ? .go : nil
        }
        if case .failed(let failure) = outcome { throw failure }
    }

    /// Hands an append over, waiting for room.
    /// - Parameter receive: sees the receipt once the events are on disk; what it returns ends the pipeline.
    package func send(
        _ append: LogAppend, receive: @escaping @Sendable (AppendReceipt) -> EventLogError?
    ) throws(EventLogError) {
        try wait { state in
            guard state.underWay < depth else { return false }
            state.underWay += 1
            return true
        }
        log.append(append) { [state] result in
            let failure: EventLogError? =
                switch result {
                case .failure(let error): error
                case .success(let receipt): receive(receipt)
                }
            state.update { state in
                state.underWay -= 1
                state.failure = state.failure ?? failure
            }
        }
    }

    /// Returns when everything sent is on disk.
    package func drain() throws(EventLogError) {
        try wait { $0.underWay == 0 }
    }
}
