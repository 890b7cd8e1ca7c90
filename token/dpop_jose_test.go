package token

import (
	"crypto/sha256"
	"testing"
)

// TestProofsOfJose reads proofs that another implementation made: jose 6.2.17
// for Node, for POST https://gw.test/mcp/orders with the token "token". The
// thumbprints are of its own making.
func TestProofsOfJose(t *testing.T) {
	for name, tt := range map[string]struct{ thumbprint, proof string }{
		"ES256, high s": {
			"MY_oMTFtIwr19ATeDkE1H8jXdoSSVL8B-i6hpXP_3dk",
			"eyJhbGciOiJFUzI1NiIsInR5cCI6ImRwb3Arand0IiwiandrIjp7Imt0eSI6IkVDIiwieCI6InRPMUVYTkdFNmdtR0ZvQjhlcGZzZFB2S1ZCcVBETU1XVW9OR1E0MXg3MGMiLCJ5IjoiSGIwQ2JKTGYxdHdVRXN4bHVKcVdVS2FCbVU2eWZlV0xDNkVTYUk5TWk2VSIsImNydiI6IlAtMjU2In19.eyJodG0iOiJQT1NUIiwiaHR1IjoiaHR0cHM6Ly9ndy50ZXN0L21jcC9vcmRlcnMiLCJqdGkiOiJiMzJjZGE2NS01YzRjLTRjZGItOTFmNC1jMTYzMzA2ZmY4ZjkiLCJhdGgiOiJQRWFlbld4WWRkTjZRX05UMVBpT1lmejRFc1p1N2pSWFJscEFzTnBCVS1BIiwiaWF0IjoxNzk1MzQ4ODEwfQ.-jKHHKah4PC1YnVqAh80OcTNjS037wMHjsfLPUF3FUejuJhkFNCqLk-VxokdkXyM4EeOFFfHitAcgjUxBrpiAQ",
		},
		"ES256, low s": {
			"E0l1AgSOLEVv161B316NKZkZPS1xv0c4Hjkv7LVbwuM",
			"eyJhbGciOiJFUzI1NiIsInR5cCI6ImRwb3Arand0IiwiandrIjp7Imt0eSI6IkVDIiwieCI6IlFpSDhKdUxjVzNzUmtSdnRJQjFKd3lhb19MWTY1dGtRbjdnRnJ3bXNXdTgiLCJ5IjoienlTeGNmLTNHa1RaWWM3MFlCNGdnT3lZUWlZajNmRUNvQXkyQ2VLR3RGVSIsImNydiI6IlAtMjU2In19.eyJodG0iOiJQT1NUIiwiaHR1IjoiaHR0cHM6Ly9ndy50ZXN0L21jcC9vcmRlcnMiLCJqdGkiOiJlOWY3MWYyOC04MjdiLTRhNmEtYWU0NC04NjhlZDU1MzQ5ZmUiLCJhdGgiOiJQRWFlbld4WWRkTjZRX05UMVBpT1lmejRFc1p1N2pSWFJscEFzTnBCVS1BIiwiaWF0IjoxNzk1MzQ4ODEwfQ.Lr6XFvJcXHxq7Tw66MaI1TZ3X0mO3sZ7UGHYMwI2pYNE0ROADbFPTDCdIYoqEC8DIAFoL4SKdMknUXDFRmrdAQ",
		},
		"Ed25519 by its own name": {
			"yd9aDNw2jWlqkn7BVbjH7Nga4AtnCs3oYjmRWpBklnQ",
			"eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiZHBvcCtqd3QiLCJqd2siOnsiY3J2IjoiRWQyNTUxOSIsIngiOiJDZjlwdTVEZWxDUDNWM1FieXJzeHBxYm0zT19rMXRoRTA5MFdha1ZHVDZNIiwia3R5IjoiT0tQIn19.eyJodG0iOiJQT1NUIiwiaHR1IjoiaHR0cHM6Ly9ndy50ZXN0L21jcC9vcmRlcnMiLCJqdGkiOiI1NzYxZmI4OC1hNDVkLTQ4ZjgtYjZlOS0zMDgzODY1ZTI2NjYiLCJhdGgiOiJQRWFlbld4WWRkTjZRX05UMVBpT1lmejRFc1p1N2pSWFJscEFzTnBCVS1BIiwiaWF0IjoxNzk1MzQ4ODEwfQ.594SqPJhIrMyXwSfY4wecPRxhHZwFOgqZY5Pntg7QyLEevvf_fRAYujtCuaYYwu2-uWv6_b1kKGSclWtrIauCg",
		},
		"Ed25519 as EdDSA": {
			"BGu-HdnFAtrl_SmNqihhEtAgyy5ctjH0efG7YI3HECc",
			"eyJhbGciOiJFZERTQSIsInR5cCI6ImRwb3Arand0IiwiandrIjp7ImNydiI6IkVkMjU1MTkiLCJ4IjoiVEozNGMtTDd2alNlSDNKUWg3Y3RyaXMyN3MxQmQ5ZWt0YlRrcG4tb2U0QSIsImt0eSI6Ik9LUCJ9fQ.eyJodG0iOiJQT1NUIiwiaHR1IjoiaHR0cHM6Ly9ndy50ZXN0L21jcC9vcmRlcnMiLCJqdGkiOiI4MmZkYWFhOS00MjJlLTQ3NDktODg1Ny00M2U2N2U3YjU1YWYiLCJhdGgiOiJQRWFlbld4WWRkTjZRX05UMVBpT1lmejRFc1p1N2pSWFJscEFzTnBCVS1BIiwiaWF0IjoxNzk1MzQ4ODEwfQ.gP0TZhBb3sMKu_doLJ1trGRwVrLyU66ngqOZ5DYD4ZSe4NxNBpFnEbg3aoPcSufhyCq0JeBCcr5FrSKpMIM4Ag",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, func(cfg *ProofConfig) { cfg.Nonces = nil })
			proof, err := p.Read([]string{tt.proof}, "POST", callURL)
			wantPass(t, err)
			if proof.KeyThumbprint() != tt.thumbprint || proof.tokenHash != ath(sha256.Sum256([]byte("token"))) {
				t.Errorf("thumbprint %s, ath %s", proof.KeyThumbprint(), proof.tokenHash)
			}
			_, err = p.Read([]string{tt.proof}, "POST", callURL+"/x")
			wantCode(t, err, CodeProofInvalid)
		})
	}
}
