// Package mutant names the breakages that prove the tests: each constant is false in every real build, and true in the
// one built with its tag, where one rule of the broker is broken on purpose. scripts/mutants.sh builds them all and
// demands that the named test fails. A test that passes on its mutant proves nothing.
//
// The constants stand where the rule stands, and cost nothing: the compiler drops what depends on them.
package mutant
