/// Who has to act on an error before the same call can succeed.
public enum Fault: String, Sendable {
    /// The caller sent something that cannot be accepted.
    case caller
    /// The outside world (disk, network, another program) failed.
    case world
    /// Headrace itself broke a rule of its own.
    case headrace
}

/// The one error shape of every module: an open code, a message that says what, where and what to do, whose fault it
/// is and whether the same call may succeed later. `Module` only keeps the errors of two modules apart.
public struct Failure<Module>: Error, CustomStringConvertible, Sendable {
    public let code: String
    public let message: String
    public let cause: (any Error)?
    public let fault: Fault
    public let retriable: Bool

    public init(
        _ code: String, _ message: String, cause: (any Error)? = nil, fault: Fault = .caller, retriable: Bool = false
    ) {
        self.code = code
        self.message = message
        self.cause = cause
        self.fault = fault
        self.retriable = retriable
    }

    public var description: String {
        guard let cause else { return "\(message) [\(code)]" }
        return "\(message) [\(code)]: \(cause)"
    }
}

/// What an API or a command needs to know of any module's error.
public protocol DescribedError: Error {
    var code: String { get }
    var message: String { get }
    var fault: Fault { get }
    var retriable: Bool { get }
}

extension Failure: DescribedError {}

public enum BaseModule {}
/// Errors of parsing and encoding in Base.
public typealias BaseError = Failure<BaseModule>
