import Foundation

/// A value behind one lock with a condition to wait on, for threads of our own (never Swift's cooperative pool, which
/// must not block). Sendable because every access goes through `condition`.
package final class Monitor<Value>: @unchecked Sendable {
    private let condition = NSCondition()
    private var value: Value

    package init(_ value: Value) { self.value = value }

    package func withLock<R, E: Error>(_ body: (inout Value) throws(E) -> R) throws(E) -> R {
        condition.lock()
        defer { condition.unlock() }
        return try body(&value)
    }

    /// Changes the value and wakes every waiter.
    package func update<R, E: Error>(_ body: (inout Value) throws(E) -> R) throws(E) -> R {
        condition.lock()
        defer {
            condition.broadcast()
            condition.unlock()
        }
        return try body(&value)
    }

    /// Waits until `body` gives a value; nil when `seconds` pass first.
    package func wait<R>(seconds: Double? = nil, until body: (inout Value) -> R?) -> R? {
        let deadline = seconds.map { Date(timeIntervalSinceNow: $0) }
        condition.lock()
        defer { condition.unlock() }
        while true {
            if let result = body(&value) { return result }
            if let deadline {
                guard condition.wait(until: deadline) else { return body(&value) }
            } else {
                condition.wait()
            }
        }
    }
}

/// A thread of our own with a name, for work that blocks.
package final class BlockingThread: Sendable {
    private let done = Monitor(false)

    package init(name: String, stackSize: Int = 4 << 20, _ body: @escaping @Sendable () -> Void) {
        let done = done
        let thread = Thread {
            body()
            done.update { $0 = true }
        }
        thread.name = name
        thread.stackSize = stackSize
        thread.start()
    }

    /// Whether its work is done.
    package var isOver: Bool { done.withLock { $0 } }

    package func join() { _ = done.wait { $0 ? true : nil } }
}
