import Foundation
import Streams
import Synchronization

/// A runner while its fold is between two slices: whoever finds it there may ask it on the spot, on a thread of his own, and
/// spares the way through the mailbox and back.
///
/// Everything goes through `lock`, which the fold's thread holds while it works.
final class RunnerGate: @unchecked Sendable {
    private let lock = NSLock()
    private var runner: TopologyRunner?
    /// The fold is at work, or waits for its turn: nobody goes before it.
    private let isAtWork = Atomic<Bool>(false)
    /// How long others who ask are waited for, in seconds: they are done in much less.
    private static let patience = 0.0005

    /// Lets others ask from now on; nil ends it.
    func open(_ runner: TopologyRunner?) {
        lock.lock()
        defer { lock.unlock() }
        self.runner = runner
    }

    /// The fold's own work: nobody else sees the runner meanwhile.
    func work<R>(_ body: () throws -> R) rethrows -> R {
        isAtWork.store(true, ordering: .relaxed)
        lock.lock()
        defer {
            lock.unlock()
            isAtWork.store(false, ordering: .relaxed)
        }
        return try body()
    }

    /// nil where the fold is at work, or there is none.
    func ask<R>(_ body: (TopologyRunner) throws -> R) throws -> R? {
        guard !isAtWork.load(ordering: .relaxed),
            lock.try() || lock.lock(before: Date(timeIntervalSinceNow: Self.patience))
        else { return nil }
        defer { lock.unlock() }
        guard let runner else { return nil }
        let answer = Result { try body(runner) }
        // What is missing is not absent, whatever was made of it.
        try runner.requireState()
        return try answer.get()
    }
}
