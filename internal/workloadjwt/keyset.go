package workloadjwt

import "crypto"

// KeysIn returns the public keys of a JWK set that have this id and are for
// this algorithm. Keys of other kinds, and private ones, are ignored.
func KeysIn(set []byte, kid string, alg Algorithm) ([]crypto.PublicKey, error) {
	all, err := parseKeys(set)
	if err != nil {
		return nil, err
	}
	var found []crypto.PublicKey
	for _, k := range all {
		if k.id == kid && k.fits(alg) {
			found = append(found, k.public)
		}
	}
	return found, nil
}
