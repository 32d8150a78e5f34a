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
    /// What programs go by.
    public let code: String
    /// What was wrong, where, and what to do.
    public let message: String
    /// What it came from.
    public let cause: (any Error)?
    /// Whose fault it is.
    public let fault: Fault
    /// Whether trying again may help.
    public let retriable: Bool

    /// An error of a module.
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
    /// What programs go by.
    var code: String { get }
    /// What was wrong, where, and what to do.
    var message: String { get }
    /// Whose fault it is.
    var fault: Fault { get }
    /// Whether trying again may help.
    var retriable: Bool { get }
}

extension Failure: DescribedError {}

/// The module's name in its errors.
public enum BaseModule {}
/// Errors of parsing and encoding in Base.
public typealias BaseError = Failure<BaseModule>
