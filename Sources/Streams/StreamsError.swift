import Base

/// The module's name in its errors.
public enum StreamsModule {}
/// Errors of topologies, state and replay.
public typealias StreamsError = Failure<StreamsModule>
