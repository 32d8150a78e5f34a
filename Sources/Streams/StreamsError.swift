import Base

public enum StreamsModule {}
/// Errors of topologies, state and replay.
public typealias StreamsError = Failure<StreamsModule>
