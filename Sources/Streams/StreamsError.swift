import Base

package enum StreamsModule {}
/// Errors of topologies, state and replay.
package typealias StreamsError = Failure<StreamsModule>
